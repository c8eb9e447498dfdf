"""The parity pack."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from targets.base import Target, scratch, write


def read_pack(content: bytes, folder: Path) -> None:
    from gtp_runtime.reference import read_reference

    read_reference(write(folder, "reference.npz", content))


@st.composite
def packs(draw: Any) -> bytes:
    """An archive of arrays with names, shapes and types of their own."""
    stream = io.BytesIO()
    names = st.sampled_from(
        [
            "images",
            "logits",
            "features",
            "labels",
            "dense_logits",
            "layer0/gap",
            "layer0/kept",
            "layer0/propagated",
            "layer0/received_by",
            "layer1/gap",
            "x",
        ]
    )
    kinds = st.sampled_from(["u1", "f4", "f8", "i4", "i8", "f2", "b1", "c8", "S3", "U2", "V4", "M8[s]"])
    with zipfile.ZipFile(stream, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        for name in draw(st.lists(names, max_size=8, unique=True)):
            shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 4]), max_size=5)))
            inner = io.BytesIO()
            np.save(inner, np.full(shape, draw(st.sampled_from([0, 1])), draw(kinds)), allow_pickle=False)
            content = inner.getvalue()
            archive.writestr(f"{name}.npy", content[: draw(st.sampled_from([None, 10, 64, len(content) - 1]))])
    return stream.getvalue()


def pack_seeds() -> list[bytes]:
    from gtp_runtime.reference import Reference, write_reference

    ids = [np.array([[0, 1], [2, 3]], np.int32)]
    pack = Reference(
        images=np.zeros((2, 4, 4, 3), np.uint8),
        answers=np.ones((2, 3), np.float32),
        dense_answers=np.ones((2, 3), np.float32),
        labels=np.array([0, 1]),
        kept=ids,
        propagated=ids,
        gap=[np.zeros(2, np.float32)],
        received_by=ids,
    )
    path = scratch() / "seed.npz"
    write_reference(pack, path)
    return [path.read_bytes()]


TARGET = Target(read_pack, pack_seeds, (b"PK\x03\x04", b"PK\x01\x02", b"\x93NUMPY", b"'|O'", b"'<f4'"), packs())
