"""Ed25519 keys in PEM files, as ``openssl genpkey -algorithm ed25519`` writes them too."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtp_runtime.errors import BackendMissingError, InputError, KeyFileError
from gtp_runtime.extras import Extra
from gtp_runtime.opening import read_regular
from gtp_runtime.transaction.atomic import create_bytes, sweep

EXTRA = Extra("sign", {"cryptography": "cryptography"})
LARGEST = 1 << 14  # bytes of a key file
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
    loaded = _load(path, "public", lambda pem: _serialization().load_pem_public_key(pem))
    if not isinstance(loaded, _ed25519().Ed25519PublicKey):
        raise KeyFileError(f"{path} is a key of another kind than Ed25519: gtp-export keygen NAME makes one")
    return PublicKey(loaded.public_bytes_raw())


def read_private_key(path: "str | os.PathLike[str]") -> PrivateKey:
    """Read a private key, which is not encrypted. Raises as ``read_public_key`` does."""
    loaded = _load(path, "private", lambda pem: _serialization().load_pem_private_key(pem, password=None))
    if not isinstance(loaded, _ed25519().Ed25519PrivateKey):
        raise KeyFileError(f"{path} is a key of another kind than Ed25519: gtp-export keygen NAME makes one")
    return PrivateKey(loaded)


def _load(path: Any, half: str, load: Any) -> Any:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"give the path of a {half} key file, not {type(path).__name__}")
    _ed25519()
    try:
        return load(read_regular(path, LARGEST))
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
    made: list[Path] = []
    for path in paths:  # of both, what an earlier call that was killed left
        sweep(path)
    try:
        for path, content, mode in zip(paths, (private, public), (0o600, 0o644), strict=True):
            create_bytes(path, content, mode)
            made.append(path)
    except OSError as error:
        for earlier in made:
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
