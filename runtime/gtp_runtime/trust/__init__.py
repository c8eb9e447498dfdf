"""Signatures of artifact directories: who vouches for an export, and that nothing in it was changed since.

``model.sig`` beside ``model.json`` signs the bytes of the manifest, which has the sha256 of every other file, and a
version number, so that an older export cannot take the place of a newer one.
"""

from gtp_runtime.trust.keys import PrivateKey, PublicKey, read_private_key, read_public_key, write_key_pair
from gtp_runtime.trust.signature import SIGNATURE_NAME, Signature, is_signed, read_signature, sign, sign_again
from gtp_runtime.trust.verifying import Trust, Verified, verify

__all__ = [
    "SIGNATURE_NAME",
    "PrivateKey",
    "PublicKey",
    "Signature",
    "Trust",
    "Verified",
    "is_signed",
    "read_private_key",
    "read_public_key",
    "read_signature",
    "sign",
    "sign_again",
    "verify",
    "write_key_pair",
]
