"""Builds TensorRT-RTX engines ahead of time, without a GPU, and writes docs/engines.md.

python benchmarks/engines.py [--models digits,deit_s] [--output docs/engines.md]
"""

import argparse
import tempfile
from pathlib import Path

from gtp_exporters import EngineOptions, ExportOptions, build_engine, export
from gtp_exporters.precisions import converted_names
from gtp_runtime.engine_info import EngineInfo
from gtp_runtime.manifest import FileEntry

PRECISIONS = converted_names()
TARGETS = ("sm86", "sm120")
HEAD = """# Engines built ahead of time

What does TensorRT-RTX {version} build from our graphs on a machine without a GPU, for {targets}? The table shows
the layers of the parsed network, the size of the engine and the build time. Build times are from one run on a 2-core
x86-64 machine. Without a GPU, engines cannot be run or inspected; `make gpu-check` does so on a machine with one. Made
by `.venv/bin/python benchmarks/engines.py`.

| model | batch | graph | precision | ONNX nodes | network layers | engine MB | build s |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def rows(model: str, batch: int, place: Path) -> list[tuple[str, EngineInfo]]:
    weights = "pretrained" if model == "digits" else "random"
    exported = export(
        model, place / f"{model}_{batch}", weights=weights, options=ExportOptions(batch=batch), check=False
    )
    made = []
    for graph in ("model", "dense"):
        nodes = exported.manifest.entry(f"{graph}.onnx").nodes
        for precision in PRECISIONS:
            path = exported.directory / f"{graph}.onnx"
            output = exported.directory / f"{graph}_{precision}.engine"
            options = EngineOptions(targets=TARGETS)
            entry = build_engine(path, output, precision=precision, flavor="rtx", options=options).entry
            made.append(_row(model, batch, entry, nodes))
            print(made[-1][0], flush=True)
    return made


def _row(model: str, batch: int, entry: FileEntry, nodes: int) -> tuple[str, EngineInfo]:
    info = entry.engine
    assert info is not None
    cells = (
        model,
        batch,
        entry.method,
        entry.precision,
        nodes,
        info.layers,
        f"{entry.size / 1e6:.1f}",
        info.build_seconds,
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |", info


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="digits,deit_s")
    parser.add_argument("--output", type=Path, default=Path("docs/engines.md"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        made = [
            row for model in arguments.models.split(",") for batch in (1, 4) for row in rows(model, batch, Path(place))
        ]
    head = HEAD.format(version=made[0][1].version, targets=" and ".join(TARGETS))
    arguments.output.write_text(head + "\n".join(line for line, _ in made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
