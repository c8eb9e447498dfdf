"""The parity pack."""

import io
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from archives import lying
from hypothesis import strategies as st

from targets.base import Target, scratch, write


def read_pack(content: bytes, folder: Path) -> None:
    from gtp_runtime.reference import read_reference

    read_reference(write(folder, "reference.npz", content))


@cache
def pack_seeds() -> list[bytes]:
    from gtp_runtime.reference import Reference, write_reference

    ids = [np.array([[0, 1], [2, 3]], np.int32)]
    pack = Reference(
        images=np.zeros((2, 4, 4, 3), np.uint8),
        outputs={"logits": np.ones((2, 3), np.float32)},
        dense_outputs={"logits": np.ones((2, 3), np.float32)},
        labels=np.array([0, 1]),
        kept=ids,
        propagated=ids,
        gap=[np.zeros(2, np.float32)],
        received_by=ids,
    )
    path = scratch() / "seed.npz"
    write_reference(pack, path)
    return [path.read_bytes()]


KINDS = st.sampled_from(["u1", "f4", "f8", "i4", "i8", "f2", "b1", "c8", "S3", "U2", "V4", "M8[s]", ">f4", "O"])
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4]), max_size=5).map(tuple)
HEADERS = st.sampled_from(
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000000000)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4)}",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (" + "9" * 5000 + ",)}",
        "{'descr': [('a', '<f4', (100000, 100000))], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': 3, 'shape': [1]}",
        "{'descr': '<f4'}",
        "[" * 3000,
    ]
)


@st.composite
def npys(draw: Any) -> bytes:
    """An array, whole or cut off, or a header that lies."""
    if draw(st.integers(0, 3)):
        stream, kind = io.BytesIO(), draw(KINDS)
        values = np.full(draw(SHAPES), draw(st.sampled_from([0, 1, -1, 300])), "i8")
        np.save(stream, values.astype("i8" if kind == "O" else kind), allow_pickle=False)
        content = stream.getvalue()
        return content[: draw(st.sampled_from([None, None, None, 10, 64, len(content) - 1]))]
    header = draw(HEADERS).encode()
    length = len(header) + draw(st.sampled_from([0, 0, 1, -1, 60000]))
    version = draw(st.sampled_from([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\4\0"]))
    size = max(0, min(length, 65535)).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + size + header + bytes(draw(st.sampled_from([0, 4, 64])))


@st.composite
def packs(draw: Any) -> bytes:
    """A whole pack, or an empty one, of which some arrays are others, or missing."""
    with np.load(io.BytesIO(pack_seeds()[0])) as whole:
        names = [*whole.files, "features", "layer1/gap", "x"]
        members = {name: whole[name] for name in whole.files if draw(st.integers(0, 9))}
    contents: dict[str, bytes] = {}
    for name, value in members.items():
        stream = io.BytesIO()
        np.save(stream, value)
        contents[name] = stream.getvalue()
    for name in draw(st.lists(st.sampled_from(names), max_size=3)):
        contents[name] = draw(npys())
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


WORDS = (b"PK\x03\x04", b"PK\x01\x02", b"\x93NUMPY", b"'|O'", b"'<f4'")
TARGET = Target(read_pack, pack_seeds, WORDS, lying(packs()))
