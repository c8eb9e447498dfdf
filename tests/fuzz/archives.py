"""Zip archives whose directory does not tell the truth."""

from typing import Any

from hypothesis import strategies as st

ENTRY = b"PK\x01\x02"
# of an entry of the directory, by place and bytes: flags, packing, checksum, sizes, lengths, place of the content
FIELDS = [(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4)]
VALUES = [0, 1, 8, 9, 12, 14, 99, 1 << 16, 1 << 31, (1 << 32) - 1]


@st.composite
def lying(draw: Any, archives: st.SearchStrategy[bytes]) -> bytes:
    """One of the archives with a few fields changed: entries may overlap, lead outside, or be cut off."""
    content = bytearray(draw(archives))
    entries = [place for place in range(len(content)) if content.startswith(ENTRY, place)]
    starts = [int.from_bytes(content[place + 42 : place + 46], "little") for place in entries]
    for _ in range(draw(st.integers(0, 3)) if entries else 0):
        place, (offset, size) = draw(st.sampled_from(entries)), draw(st.sampled_from(FIELDS))
        value = draw(st.sampled_from(VALUES + starts)) % (1 << 8 * size)
        content[place + offset : place + offset + size] = value.to_bytes(size, "little")
    return bytes(content[: draw(st.sampled_from([None] * 9 + [-1, -22, len(content) // 2]))])
