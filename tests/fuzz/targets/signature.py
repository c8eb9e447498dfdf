"""Signatures, keys and remembered versions: the same bytes as each of them."""

import json
import os
import shutil
from pathlib import Path

from targets.base import MANIFEST, Target, refused, scratch, write


def read_signature(content: bytes, folder: Path) -> None:
    from gtp_runtime.trust import Trust, read_private_key, verify
    from gtp_runtime.trust import read_signature as read

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
    from gtp_runtime.trust import write_key_pair

    place = scratch() / f"k{os.getpid()}"
    private, public = place.with_suffix(".key"), place.with_suffix(".pub")
    if not private.exists():
        write_key_pair(place)
    made = {"version": 3, "key": "0" * 16, "signature": "ab" * 64, "format": 1}
    return [json.dumps(made).encode(), private.read_bytes(), public.read_bytes(), b'{"version": 7}']


TARGET = Target(read_signature, signature_seeds, (b"-----BEGIN", b'"version"', b"null", b"9" * 30))
