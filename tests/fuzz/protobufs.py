"""Protobuf messages of which nothing need be true: lengths, kinds and depths that lie."""

from typing import Any

from hypothesis import strategies as st

VARINT, FIXED64, BYTES, START, END, FIXED32 = range(6)
NUMBERS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 20, 22, 23, 25, 1 << 28, 0])
LIES = st.sampled_from([1, -1, 127, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1])
WORDS = st.sampled_from([b"", b"location", b"../../etc/passwd", b"/dev/zero", b"EPContext", b"MatMul", b"x" * 5000])
DEPTHS = st.sampled_from([1, 2, 31, 33, 100, 3000])


def varint(value: int) -> bytes:
    """Encode a number of 64 bits."""
    value &= (1 << 64) - 1
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])


def field(number: int, kind: int, content: bytes) -> bytes:
    """Encode a field; the content of ``BYTES`` has its length already."""
    return varint(number << 3 | kind) + content


def sized(content: bytes, lie: int = 0) -> bytes:
    """Put a length before the content: the true one, and something more or less."""
    return varint(len(content) + lie) + content


@st.composite
def fields(draw: Any, inner: st.SearchStrategy[bytes]) -> bytes:
    """A field of any kind."""
    kind = draw(st.sampled_from([BYTES, BYTES, BYTES, VARINT, FIXED64, FIXED32, START, END, 6, 7]))
    if kind == BYTES:
        return field(draw(NUMBERS), kind, sized(draw(inner), draw(st.one_of(st.just(0), st.just(0), LIES))))
    content = {VARINT: varint(draw(LIES)), FIXED64: bytes(8), FIXED32: bytes(4)}.get(kind, b"")
    return field(draw(NUMBERS), kind, content[: draw(st.sampled_from([None, None, 3]))])


MESSAGES = st.recursive(
    WORDS | st.binary(max_size=16), lambda inner: st.lists(fields(inner), max_size=5).map(b"".join), max_leaves=30
)


@st.composite
def nested(draw: Any) -> bytes:
    """A graph in a graph in a graph, ..., by the fields that lead to one."""
    content = draw(MESSAGES)
    for _ in range(draw(DEPTHS)):
        content = field(1, BYTES, sized(field(5, BYTES, sized(field(6, BYTES, sized(content))))))
    return field(7, BYTES, sized(content))
