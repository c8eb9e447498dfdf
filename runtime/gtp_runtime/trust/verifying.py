"""Verifies a signed directory, and remembers the highest version that was accepted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gtp_runtime import atomic
from gtp_runtime.errors import InputError, SignatureError
from gtp_runtime.manifest import FILE_NAME, Manifest, parse_manifest
from gtp_runtime.opening import read_regular
from gtp_runtime.trust.contents import AGAIN, check_contents, manifest_bytes
from gtp_runtime.trust.keys import PublicKey, read_public_key
from gtp_runtime.trust.signature import SIGNATURE_NAME, Signature, message, read_signature

LARGEST = 4096  # bytes of a file that remembers


@dataclass(frozen=True)
class Trust:
    """What an application demands of a directory.

    Attributes:
        keys: public keys, of which one must have signed.
        min_version: the lowest version that is accepted.
        remember: a file, one for each place where exports are put, that keeps the highest version accepted so far,
            which is demanded from then on; None for none.
    """

    keys: tuple[PublicKey, ...]
    min_version: int = 1
    remember: Path | None = None

    @classmethod
    def of(cls, trusted_key: Any, min_version: int | None = None, remember: Any = None) -> "Trust | None":
        """Read the keys; None where none is demanded.

        Raises:
            InputError: a version or file without a key, or of a wrong type.
            KeyFileError, BackendMissingError: as ``read_public_key``.
        """
        if trusted_key is None:
            if min_version is not None or remember is not None:
                raise InputError("min_version and remember are of signatures: give trusted_key too")
            return None
        paths = trusted_key if isinstance(trusted_key, list | tuple) else [trusted_key]
        if isinstance(min_version, bool) or not isinstance(min_version, int | None):
            raise InputError(f"min_version={min_version!r}: give a whole number")
        if not paths:
            raise InputError("no trusted key: give at least one")
        return cls(tuple(map(read_public_key, paths)), min_version or 1, None if remember is None else Path(remember))


@dataclass(frozen=True)
class Verified:
    """A directory that is as its signer left it.

    Attributes:
        manifest: what it holds.
        signature: by whom, and which version.
    """

    manifest: Manifest
    signature: Signature


@dataclass(frozen=True)
class _Memory:
    """What a file remembers: the highest version that was accepted."""

    version: int


def verify(directory: Path, trust: Trust) -> Verified:
    """Check that a trusted key signed a directory, in a version that is not too old, and that all is as it was then.

    Raises:
        SignatureError: its ``kind`` says what: "unsigned", "key", "changed", "added", "missing" or "replayed".
        ManifestError: no manifest, or one that this gtp-export cannot read, although it was signed.
    """
    signature = read_signature(directory)
    content = manifest_bytes(directory)
    _check_signature(directory, signature, content, trust.keys)
    manifest = parse_manifest(content, directory / FILE_NAME)
    known, lowest = _read_memory(trust.remember), lowest_version(trust)
    if signature.version < lowest:
        raise SignatureError(
            "replayed",
            f"{directory} was signed as version {signature.version}, and {lowest} or newer is demanded: an older "
            "export was put in place of a newer one",
        )
    check_contents(directory, manifest, {FILE_NAME, SIGNATURE_NAME})
    if trust.remember is not None and signature.version > known:
        _write_memory(trust.remember, signature.version)
    return Verified(manifest, signature)


def lowest_version(trust: Trust) -> int:
    """Return the lowest version that is accepted, that which is remembered included.

    Raises:
        SignatureError: "memory": the file cannot be read.
    """
    return max(trust.min_version, _read_memory(trust.remember))


def _check_signature(directory: Path, signature: Signature, content: bytes, keys: Sequence[PublicKey]) -> None:
    signers = [key for key in keys if key.id == signature.key]
    if not signers:
        trusted = ", ".join(key.id for key in keys)
        raise SignatureError("key", f"{directory} is signed by the key {signature.key[:16]!r}, trusted are {trusted}")
    signed = message(signature.version, content)
    if not any(key.accepts(bytes.fromhex(signature.signature), signed) for key in signers):
        raise SignatureError(
            "changed", f"{directory / FILE_NAME} or {SIGNATURE_NAME} was changed after it was signed: {AGAIN}"
        )


def _read_memory(path: Path | None) -> int:
    """Return the version that is remembered; 0 where nothing is yet."""
    if path is None:
        return 0
    try:
        return msgspec.json.decode(read_regular(path, LARGEST), type=_Memory).version
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise SignatureError("memory", f"cannot read the version in {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SignatureError("memory", f"{path} remembers no version: it was damaged; restore it") from error


def _write_memory(path: Path, version: int) -> None:
    try:
        atomic.write_bytes(path, msgspec.json.encode(_Memory(version)) + b"\n")
    except OSError as error:
        raise SignatureError("memory", f"cannot write the version to {path}: {error.strerror or error}") from error
