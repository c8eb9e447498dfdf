"""Signatures, keys and remembered versions: the same bytes as each of them."""

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from targets.base import MANIFEST, Target, edits, refused, scratch, write


def read_signature(content: bytes, folder: Path) -> None:
    from gtp_runtime.deploy.signing import Trust, read_private_key, verify
    from gtp_runtime.deploy.signing import read_signature as read

    write(folder, "model.sig", content)
    with refused():
        read(folder)
    with refused():
        read_private_key(write(folder, "x.key", content))
    with refused():
        Trust.of(write(folder, "x.pub", content))
    shutil.copy(MANIFEST, folder / "model.json")
    verify(folder, Trust((), remember=write(folder, "memory", content)))


def signature_seeds() -> list[bytes]:
    from gtp_runtime.deploy.signing import write_key_pair

    place = scratch() / f"k{os.getpid()}"
    private, public = place.with_suffix(".key"), place.with_suffix(".pub")
    if not private.exists():
        write_key_pair(place)
    made = {"version": 3, "key": "0" * 16, "signature": "ab" * 64, "format": 1}
    return [json.dumps(made).encode(), private.read_bytes(), public.read_bytes(), b'{"version": 7}']


@st.composite
def pems(draw: Any) -> bytes:
    """A PEM of a whole key, or of another kind of object, with a few bytes changed."""
    content = draw(st.sampled_from(signature_seeds()[1:3]))
    lines = content.splitlines()
    der = bytearray(base64.b64decode(b"".join(lines[1:-1])))
    for _ in range(draw(st.integers(0, 3))):
        der[draw(st.integers(0, len(der) - 1))] = draw(st.sampled_from([0, 1, 2, 0x30, 0x7F, 0x80, 0x84, 0xFF]))
    label = draw(st.sampled_from([b"PRIVATE KEY", b"PUBLIC KEY", b"RSA PRIVATE KEY", b"CERTIFICATE", b"X"]))
    body = base64.encodebytes(bytes(der)[: draw(st.sampled_from([None, None, 5]))])
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, body, label)


def signature_seed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(signature_seeds()[0])
    return found


WORDS = (b"-----BEGIN", b'"version"', b"null", b"9" * 30)
TARGET = Target(read_signature, signature_seeds, WORDS, st.one_of(edits(signature_seed), pems()))
