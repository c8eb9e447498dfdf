"""Reads the identifiers out of TensorRT's Python bindings, which cannot be imported without TensorRT's libraries.

    pip download --no-deps tensorrt-cu12-bindings==10.3.0  # and 10.13.3.9; tensorrt_cu13_bindings==11.4.0.106
    python extract.py WHEEL VERSION.txt

The names that pybind11 registers stand in the binary as plain strings. Only those that could be public names are kept.
"""

import re
import sys
import zipfile
from pathlib import Path

IDENTIFIER = re.compile(rb"(?<=\0)([A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*)(?=\0)")


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        binary = next(name for name in archive.namelist() if name.endswith("tensorrt.so"))
        found = {match.decode() for match in IDENTIFIER.findall(archive.read(binary))}
    return sorted(name for name in found if 3 <= len(name) <= 60)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text("\n".join(names(Path(sys.argv[1]))) + "\n", encoding="utf-8")
