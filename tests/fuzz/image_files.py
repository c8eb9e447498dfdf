"""Image files made of whole parts: sizes, lengths and counts that lie, parts that unpack to much, parts that repeat."""

import struct
import zlib
from typing import Any

from hypothesis import strategies as st

SIDES = st.sampled_from([0, 1, 7, 9, 255, 8192, 8193, 65535, 100_000, (1 << 31) - 1])
SMALL = st.sampled_from([1, 7, 9, 16])
BYTES = st.binary(max_size=40)
LIES = st.sampled_from([0] * 20 + [1, -1, 1 << 16, (1 << 31) - 1])
KIBIBYTES = st.sampled_from([0, 1, 64, 4096, 1 << 15])  # that a part unpacks to


@st.composite
def packed(draw: Any) -> bytes:
    """Zeros or noise, packed by zlib, or not."""
    zeros = bytes(draw(KIBIBYTES) << 10)
    return draw(st.sampled_from([zlib.compress(zeros, 9), zlib.compress(zeros, 9)[:-3], zlib.compress(draw(BYTES))]))


@st.composite
def pngs(draw: Any) -> bytes:
    """A PNG of chunks."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        length = max(0, len(data) + draw(LIES)) & 0xFFFFFFFF
        crc = draw(st.sampled_from([zlib.crc32(kind + data)] * 9 + [0]))
        return struct.pack(">I", length) + kind + data + struct.pack(">I", crc)

    sides = draw(st.tuples(SMALL, SMALL) | st.tuples(SIDES, SIDES))
    depth, colour, interlaced = draw(
        st.tuples(*map(st.sampled_from, ([1, 2, 4, 8, 16, 3], [0, 2, 3, 4, 6, 7], [0, 1])))
    )
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", *sides, depth, colour, 0, 0, interlaced))]
    for kind in draw(st.lists(st.sampled_from([b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"pHYs"]), max_size=4)):
        parts.append(chunk(kind, draw(BYTES)))
    for kind in draw(st.lists(st.sampled_from([b"iCCP\0x\0\0", b"zTXtx\0\0", b"iTXtx\0\1\0\0\0"]), max_size=3)):
        parts.append(chunk(kind[:4], kind[4:] + draw(packed())))
    parts += [chunk(b"IDAT", draw(packed())) for _ in range(draw(st.integers(0, 3)))]
    return (
        b"\x89PNG\r\n\x1a\n"
        + b"".join(draw(st.one_of(st.just(parts), st.just(parts), st.permutations(parts))))
        + chunk(b"IEND", b"")
    )


TAGS = [256, 257, 258, 259, 262, 273, 277, 278, 279, 282, 284, 317, 320, 322, 323, 324, 325, 330, 339, 34665, 33723]


@st.composite
def tiffs(draw: Any) -> bytes:
    """A TIFF of entries; its directory may follow itself."""
    big = draw(st.booleans())
    order = ">" if big else "<"
    count = st.sampled_from([0, 1, 1, 1, 3, 4, 1 << 16, 1 << 31, (1 << 32) - 1])
    value = st.sampled_from([0, 1, 3, 5, 7, 8, 9, 16, 32, 32773, 65535, 1 << 31, (1 << 32) - 1])
    kind = st.sampled_from([1, 2, 3, 4, 5, 7, 12, 13, 16, 99])
    basic = {
        256: draw(SMALL | SIDES),
        257: draw(SMALL | SIDES),
        258: 8,
        259: draw(st.sampled_from([1, 5, 7, 8, 32773])),
    }
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, number) for tag, number in basic.items()]
    for tag in draw(st.lists(st.sampled_from(TAGS), max_size=12)):
        entries.append(struct.pack(f"{order}HHII", tag, draw(kind), draw(count), draw(value)))
    following = struct.pack(f"{order}I", draw(st.sampled_from([0, 8, 9])))
    head = struct.pack(f"{order}2sHI", b"MM" if big else b"II", 42, 8) + struct.pack(f"{order}H", len(entries))
    return head + b"".join(entries) + following + draw(packed())


@st.composite
def gifs(draw: Any) -> bytes:
    """A GIF of frames that need not fit its screen."""
    sides = st.sampled_from([0, 1, 7, 300, 65535])
    content = b"GIF89a" + struct.pack("<HHBBB", draw(sides), draw(sides), draw(st.sampled_from([0, 0x80, 0x87])), 0, 0)
    content += bytes(range(6)) * draw(st.sampled_from([1, 128]))
    for _ in range(draw(st.integers(0, 3))):
        frame = struct.pack("<HHHHB", *(draw(sides) for _ in range(4)), draw(st.sampled_from([0, 0x40, 0x80])))
        content += b"," + frame + bytes([draw(st.integers(0, 12))]) + bytes([20]) + draw(BYTES)[:20].ljust(20) + b"\0"
    return content + b";"


@st.composite
def bmps(draw: Any) -> bytes:
    """A BMP with a header of any size."""
    size, bits = (
        draw(st.sampled_from([12, 40, 64, 108, 124, 0, 1 << 31])),
        draw(st.sampled_from([1, 4, 8, 16, 24, 32, 5])),
    )
    offset, colours = draw(st.sampled_from([0, 26, 54, 1 << 31])), draw(st.sampled_from([0, 2, 256, 1 << 31]))
    sides = [draw(SMALL | SIDES) * draw(st.sampled_from([1, 1, -1])) for _ in range(2)]
    head = struct.pack("<IiiHHIIiiII", size, *sides, 1, bits, draw(st.integers(0, 6)), 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, offset) + head + draw(packed())


@st.composite
def jpegs(draw: Any) -> bytes:
    """A JPEG of segments."""
    content = b"\xff\xd8"
    for kind in draw(
        st.lists(st.sampled_from([0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE]), max_size=9)
    ):
        data = draw(BYTES)
        if kind in (0xC0, 0xC2):
            sides = draw(SMALL | SIDES) & 0xFFFF, draw(SMALL | SIDES) & 0xFFFF
            data = struct.pack(">BHHB", 8, *sides, draw(st.sampled_from([1, 3, 4, 0]))) + data
        length = (len(data) + 2 + draw(LIES)) & 0xFFFF
        content += struct.pack(">BBH", 0xFF, kind, length) + data
    return content + b"\xff\xd9"


IMAGES = st.one_of(pngs(), pngs(), tiffs(), gifs(), bmps(), jpegs())
