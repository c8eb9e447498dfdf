"""``model.sig``: the detached signature of a manifest.

It is JSON: ``format`` 1, ``version`` (a whole number that the signer raises), ``key`` (the public key's id) and
``signature`` (hexadecimal, of Ed25519). Signed is ``message``: a line that says what this is, the version, and the
bytes of model.json as they are.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from gtp_runtime import atomic
from gtp_runtime.errors import InputError, SignatureError
from gtp_runtime.manifest import FILE_NAME, parse_manifest
from gtp_runtime.opening import read_regular
from gtp_runtime.trust.contents import check_contents, manifest_bytes
from gtp_runtime.trust.keys import PrivateKey

SIGNATURE_NAME = "model.sig"
FORMAT = 1
LARGEST = 4096  # bytes
MOST = 1 << 62  # of a version


@dataclass(frozen=True)
class Signature:
    """What ``model.sig`` says.

    Attributes:
        version: of the export, raised by the signer; 1 or more.
        key: id of the key that signed.
        signature: 64 bytes in hexadecimal digits.
        format: of the file.
    """

    version: int
    key: str
    signature: str
    format: int = FORMAT


def message(version: int, manifest: bytes) -> bytes:
    """Return the bytes that are signed: no other use of the key can give a signature that passes for this one."""
    return b"gtp-export signature %d\nversion %d\n" % (FORMAT, version) + manifest


def is_signed(directory: Path) -> bool:
    """Whether a directory has a signature; not whether it is valid."""
    return (directory / SIGNATURE_NAME).exists()


def sign(directory: Path, key: PrivateKey, version: int) -> Signature:
    """Sign a directory that is whole: every file that its manifest lists is there as it says, and no other.

    An earlier signature is replaced; the file is written whole or not at all.

    Raises:
        ManifestError: no manifest, or a file is missing or was changed.
        SignatureError: there are other files.
        InputError: a version that is not in 1..2^62, or not above that of an earlier signature.
        OSError: it cannot be written.
    """
    if not 1 <= version <= MOST:
        raise InputError(f"version {version}: give a whole number from 1 to {MOST}")
    if is_signed(directory) and version <= (earlier := read_signature(directory).version):
        raise InputError(f"version {version}: {directory} was signed as {earlier} already; give a higher one")
    return sign_again(directory, key, version)


def sign_again(directory: Path, key: PrivateKey, version: int) -> Signature:
    """Sign a directory as ``sign`` does, in a version that it may have been signed as before."""
    content = manifest_bytes(directory)
    check_contents(directory, parse_manifest(content, directory / FILE_NAME), {FILE_NAME, SIGNATURE_NAME})
    made = Signature(version, key.public.id, key.sign(message(version, content)).hex())
    atomic.write_bytes(directory / SIGNATURE_NAME, _encoded(made))
    return made


def _encoded(signature: Signature) -> bytes:
    return msgspec.json.encode(signature) + b"\n"


def read_signature(directory: Path) -> Signature:
    """Read ``model.sig``; whether it is valid is for ``verify``.

    Raises:
        SignatureError: there is none, or it is damaged.
    """
    path = directory / SIGNATURE_NAME
    try:
        content = read_regular(path, LARGEST)
        found = msgspec.json.decode(content, type=Signature)
        bytes.fromhex(found.signature)
        if content != _encoded(found):  # there is one way to write it, so that no byte can be changed
            raise ValueError("written in another way")
    except FileNotFoundError as error:
        raise SignatureError(
            "unsigned", f"{directory} is not signed (no {SIGNATURE_NAME}): gtp-export sign DIR --key FILE"
        ) from error
    except OSError as error:
        raise SignatureError("changed", f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SignatureError("changed", f"{path} is damaged: take the directory from its source again") from error
    if found.format != FORMAT or not 1 <= found.version <= MOST:
        raise SignatureError("changed", f"{path} has format {found.format}, version {found.version}: update gtp-export")
    return found
