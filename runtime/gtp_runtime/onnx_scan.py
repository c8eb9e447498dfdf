"""Walks an ONNX file without the onnx package, and refuses one that reaches outside itself.

A graph may name files that its weights are in (external data): any path of the machine. And a node ``EPContext`` may
hold a compiled engine, which ONNX Runtime's TensorRT provider would deserialise. Functions that call each other, and
sparse tensors, unfold a few bytes to any size. All are found here before anything loads the file. Only the structure is
read; weights are skipped, so that a large file costs little.

Protobuf is a list of fields: a key (number and kind), then a number, or a length and that many bytes.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from gtp_runtime.opening import open_regular

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
DEEPEST = 32  # graphs in graphs
LONGEST = 4096  # bytes of a name
MOST = 2_000_000  # fields; a graph of 4,000 nodes has some 50,000
# message: field number to what it holds, as far as it leads to tensors and nodes (onnx.proto)
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "node": {4: "operator", 5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {13: "external"},
    "external": {1: "key", 2: "value"},
}
ENGINES = {b"EPContext"}
UNFOLDING = {"function": "functions", "sparse": "sparse tensors"}  # no export has them

Span = tuple[int, int]


class ScanError(Exception):
    """A file that is no ONNX graph, or one that reaches outside itself; says how."""


def scan(path: Path, external_data: str | None) -> None:
    """Check that a graph names no file but ``external_data``, the one beside it, and holds no compiled engine, and
    nothing that unfolds to any size.

    Raises:
        ScanError: it does, or it is damaged.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise ScanError("it is empty, no ONNX graph")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _Scan(content, external_data).message("model", (0, size), 0)


class _Scan:
    def __init__(self, content: mmap.mmap, allowed: str | None) -> None:
        self.content, self.allowed, self.left = content, allowed, MOST

    def message(self, kind: str, span: Span, depth: int) -> None:
        """Walk a message; what it says of an external file is checked as a whole."""
        if depth > DEEPEST:
            raise ScanError(f"it is nested more than {DEEPEST} levels deep")
        said: dict[str, bytes] = {}
        is_empty = True
        for number, inner in self._fields(span):
            is_empty = False
            what = MESSAGES[kind].get(number)
            if what in UNFOLDING:
                raise ScanError(f"it holds {UNFOLDING[what]}, which can unfold to any size")
            if what in ("key", "value", "operator"):
                said[what] = self._name(inner)
            elif what is not None:
                self.message(what, inner, depth + 1)
        if kind == "model" and is_empty:
            raise ScanError("it is no ONNX graph")
        if said.get("operator") in ENGINES:
            raise ScanError("it holds a compiled engine (EPContext), which is never run from a graph")
        if said.get("key") == b"location":
            self._check(said.get("value", b""))

    def _check(self, location: bytes) -> None:
        if self.allowed is None or location != self.allowed.encode():
            name = location.decode(errors="replace")
            raise ScanError(f"it keeps weights in {name!r:.80}, a file that the manifest does not name for it")

    def _name(self, span: Span) -> bytes:
        start, end = span
        if end - start > LONGEST:
            raise ScanError(f"it holds a name of {end - start} bytes")
        return self.content[start:end]

    def _fields(self, span: Span) -> Iterator[tuple[int, Span]]:
        """Yield number and place of the fields of a message that are bytes; pass over numbers."""
        place, end = span
        while place < end:
            self.left -= 1
            if self.left < 0:
                raise ScanError(f"it has more than {MOST} fields")
            key, place = self._varint(place, end)
            kind, start = key & 7, place
            if kind == BYTES:
                length, start = self._varint(place, end)
                place = start + length
            elif kind == VARINT:
                _, place = self._varint(place, end)
            elif kind in (FIXED64, FIXED32):
                place += 8 if kind == FIXED64 else 4
            else:
                raise ScanError("it is damaged, or no ONNX graph")
            if place > end:
                raise ScanError("it is cut short, or no ONNX graph")
            if kind == BYTES:
                yield key >> 3, (start, place)

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if place >= end:
                raise ScanError("it is cut short, or no ONNX graph")
            byte = self.content[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, place
        raise ScanError("it is damaged, or no ONNX graph")
