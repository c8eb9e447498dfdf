"""Signatures of artifact directories: who vouches for an export, and that nothing in it was changed since.

``model.sig`` beside ``model.json`` signs the bytes of the manifest, which has the sha256 of every other file, and a
version number, so that an older export cannot take the place of a newer one.

It is JSON: ``format`` 1, ``version`` (a whole number that the signer raises), ``key`` (the public key's id) and
``signature`` (hexadecimal, of Ed25519). Signed is ``message``: a line that says what this is, the version, and the
bytes of model.json as they are.
"""

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gtp_runtime import atomic
from gtp_runtime.atomic import create_bytes, sweep, temporary_of
from gtp_runtime.errors import BackendMissingError, InputError, KeyFileError, ManifestError, SignatureError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FILE_NAME, SIGNATURE_NAME, WORK_NAME, Manifest, check_file, parse_manifest
from gtp_runtime.manifest.reading import LARGEST
from gtp_runtime.opening import open_regular, read_regular

FORMAT = 1
LARGEST_SIGNATURE = 4096  # bytes
MOST = 1 << 62  # of a version
EXTRA = Extra("sign", {"cryptography": "cryptography"})
LARGEST_KEY = 1 << 14  # bytes of a key file
PRIVATE, PUBLIC = ".key", ".pub"  # endings of a key pair


@dataclass(frozen=True)
class PublicKey:
    """Verifies.

    Attributes:
        raw: 32 bytes.
    """

    raw: bytes

    @property
    def id(self) -> str:
        """What names it: the first 16 hexadecimal digits of its sha256."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def accepts(self, signature: bytes, message: bytes) -> bool:
        """Whether the private half signed a message."""
        from cryptography.exceptions import InvalidSignature

        try:
            _ed25519().Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, repr=False)
class PrivateKey:
    """Signs. Its bytes appear in no message.

    Attributes:
        key: of the cryptography package.
    """

    key: Any

    @property
    def public(self) -> PublicKey:
        """The half that verifies."""
        return PublicKey(self.key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return 64 bytes."""
        return bytes(self.key.sign(message))


def read_public_key(path: "str | os.PathLike[str]") -> PublicKey:
    """Read a public key.

    Raises:
        KeyFileError: it cannot be read, or is no Ed25519 public key.
        BackendMissingError: cryptography is not installed.
    """
    key = _load(path, "public", lambda pem: _serialization().load_pem_public_key(pem))
    if not isinstance(key, _ed25519().Ed25519PublicKey):
        raise KeyFileError(f"{path} is a key of another kind than Ed25519: gtp-export keygen NAME makes one")
    return PublicKey(key.public_bytes_raw())


def read_private_key(path: "str | os.PathLike[str]") -> PrivateKey:
    """Read a private key, which is not encrypted. Raises as ``read_public_key`` does."""
    key = _load(path, "private", lambda pem: _serialization().load_pem_private_key(pem, password=None))
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise KeyFileError(f"{path} is a key of another kind than Ed25519: gtp-export keygen NAME makes one")
    return PrivateKey(key)


def _load(path: Any, half: str, load: Any) -> Any:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"give the path of a {half} key file, not {type(path).__name__}")
    _ed25519()
    try:
        return load(read_regular(path, LARGEST_KEY))
    except OSError as error:
        raise KeyFileError(f"cannot read the {half} key {path}: {error.strerror}") from error
    except Exception as error:  # cryptography's differ by version; what is in a key file is not repeated
        raise KeyFileError(
            f"{path} holds no {half} Ed25519 key in PEM without a password: gtp-export keygen NAME makes a pair"
        ) from error


def write_key_pair(name: Path) -> tuple[Path, Path, PublicKey]:
    """Make a key pair and write ``name.key`` (readable by its owner alone) and ``name.pub``; replaces no file.

    Raises:
        KeyFileError: one of them exists, or cannot be written.
        BackendMissingError: cryptography is not installed.
    """
    if name.name in ("", ".."):
        raise KeyFileError(f"{name} names no key: give a name such as vendor")
    key = PrivateKey(_ed25519().Ed25519PrivateKey.generate())
    forms = _serialization()
    private = key.key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    public = key.key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    paths = (name.with_name(name.name + PRIVATE), name.with_name(name.name + PUBLIC))
    new: list[Path] = []
    for path in paths:  # of both, what an earlier call that was killed left
        sweep(path)
    try:
        for path, content, mode in zip(paths, (private, public), (0o600, 0o644), strict=True):
            create_bytes(path, content, mode)
            new.append(path)
    except OSError as error:
        for earlier in new:
            earlier.unlink(missing_ok=True)
        what = "exists, and a key is never replaced" if isinstance(error, FileExistsError) else error.strerror
        raise KeyFileError(f"cannot write the key {path}: {what}; choose another name") from error
    return *paths, key.public


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise BackendMissingError(f"cryptography is not installed: {EXTRA.command}") from error
    return ed25519


def _serialization() -> Any:
    from cryptography.hazmat.primitives import serialization

    return serialization


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
    signature = Signature(version, key.public.id, key.sign(message(version, content)).hex())
    atomic.write_bytes(directory / SIGNATURE_NAME, _encoded(signature))
    return signature


def _encoded(signature: Signature) -> bytes:
    return msgspec.json.encode(signature) + b"\n"


def read_signature(directory: Path) -> Signature:
    """Read ``model.sig``; whether it is valid is for ``verify``.

    Raises:
        SignatureError: there is none, or it is damaged.
    """
    path = directory / SIGNATURE_NAME
    try:
        content = read_regular(path, LARGEST_SIGNATURE)
        signature = msgspec.json.decode(content, type=Signature)
        bytes.fromhex(signature.signature)
        if content != _encoded(signature):  # there is one way to write it, so that no byte can be changed
            raise ValueError("written in another way")
    except FileNotFoundError as error:
        raise SignatureError(
            "unsigned", f"{directory} is not signed (no {SIGNATURE_NAME}): gtp-export sign DIR --key FILE"
        ) from error
    except OSError as error:
        raise SignatureError("changed", f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SignatureError("changed", f"{path} is damaged: take the directory from its source again") from error
    if signature.format != FORMAT or not 1 <= signature.version <= MOST:
        raise SignatureError(
            "changed", f"{path} has format {signature.format}, version {signature.version}: update gtp-export"
        )
    return signature


LARGEST_MEMORY = 4096  # bytes of a file that remembers


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
        return msgspec.json.decode(read_regular(path, LARGEST_MEMORY), type=_Memory).version
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


AGAIN = "take the directory from its source again"


def manifest_bytes(directory: Path) -> bytes:
    """Return the bytes of the manifest, which are signed: what they say is read from them, not from the file again.

    Raises:
        SignatureError: it is a link, or cannot be read.
        ManifestError: there is none.
    """
    path = directory / FILE_NAME
    try:
        with open_regular(path, LARGEST, links=False) as file:
            return file.read()
    except FileNotFoundError as error:
        raise ManifestError(f"no manifest {path}: gtp-export export MODEL -o DIR writes one") from error
    except OSError as error:
        raise SignatureError("changed", f"cannot read {path}: {error.strerror}") from error


def check_contents(directory: Path, manifest: Manifest, own: Collection[str]) -> None:
    """Check every file of a directory, but what writers of ours that were killed left: nothing reads that.

    Args:
        directory: where they are.
        manifest: what lists them.
        own: names that may be there beside those.

    Raises:
        SignatureError: "missing", "added" or "changed"; names the file.
    """
    known = {*manifest.files, *own}
    names = {entry.name for entry in directory.iterdir() if not _is_leftover(entry, known)}
    if missing := [name for name in sorted(set(manifest.files) - names) if not _is_whole(directory / name, manifest)]:
        raise SignatureError("missing", f"{directory / missing[0]} was taken away: {AGAIN}")
    if added := sorted(names - known):
        raise SignatureError("added", f"{directory / added[0]} was added, the manifest does not list it: remove it")
    for name in manifest.files:
        path = directory / name
        if path.is_symlink():
            raise SignatureError("changed", f"{path} is a link and must be a file: {AGAIN}")
        try:
            check_file(path, manifest)
        except ManifestError as error:
            raise SignatureError("changed", f"{error}".replace("export again", AGAIN)) from error


def _is_leftover(path: Path, known: Collection[str]) -> bool:
    """Whether it is a temporary file of a file that is known, or the folder in which an export is written."""
    if path.name == WORK_NAME:
        return path.is_dir() and not path.is_symlink()
    return temporary_of(path.name) in known and path.is_file() and not path.is_symlink()


def _is_whole(path: Path, manifest: Manifest) -> bool:
    """Whether a file that was not there is, now that it was checked."""
    try:
        check_file(path, manifest)
    except ManifestError:
        return False
    return True
