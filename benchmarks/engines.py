"""Builds TensorRT-RTX engines ahead of time, without a GPU, and writes benchmarks/results/engines.md.

python benchmarks/engines.py [--models digits,deit_s] [--output benchmarks/results/engines.md]
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gtp_exporters import EngineOptions, ExportOptions, build_engine, export
from gtp_models import GTPConfig, Settings, load_recipe, make_plan
from gtp_models.weights import outline
from gtp_runtime.manifest import EngineInfo
from gtp_runtime.precisions import converted_names

PRECISIONS = converted_names("tensorrt")
TARGETS = ("sm86", "sm120")
HEAD = """# Engines built ahead of time

What does TensorRT-RTX {version} build from our graphs on a machine without a GPU, for {targets}? The table shows
the layers of the parsed network, how many more these are than the dense baseline's, the size of the engine and the
build time. *paper* and *measured* are GTP's presets, with equal MACs: those of the recipe's
number of tokens. Build times are from one run on a 2-core
x86-64 machine. Without a GPU, engines cannot be run or inspected; `make gpu-check` does so on a machine with one. Made
by `.venv/bin/python benchmarks/engines.py`.

| model | batch | graph | precision | ONNX nodes | network layers | added | engine MB | build s |
| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |
"""


@dataclass(frozen=True)
class Built:
    """An engine: of which graph ("dense" or a preset), in which precision, its ONNX nodes, and what TensorRT says."""

    graph: str
    precision: str
    nodes: int
    size: int
    info: EngineInfo


def build(model: str, batch: int, place: Path) -> list[Built]:
    """Build every graph of a model in every precision, the dense baseline first."""
    recipe = load_recipe(model)
    paper = GTPConfig.paper(num_prop=recipe.gtp["num_prop"])
    measured = GTPConfig.measured(keep=make_plan(outline(recipe), paper).ratio)
    presets = {"paper": paper, "measured": measured}
    made = []
    for name, settings in presets.items():
        made += graphs(model, batch, name, settings, place)
    return made


def graphs(model: str, batch: int, name: str, settings: Settings, place: Path) -> list[Built]:
    """Build a preset's graph, and with the first preset the dense baseline."""
    weights = "pretrained" if model == "digits" else "random"
    first = name == "paper"
    options = ExportOptions(batch=batch, dense=first, target="tensorrt")
    exported = export(
        model, place / f"{model}_{batch}_{name}", settings=settings, weights=weights, options=options, check=False
    )
    made = []
    for graph, called in (("dense", "dense"), ("model", name)) if first else (("model", name),):
        path = exported.directory / f"{graph}.onnx"
        for precision in PRECISIONS:
            output = exported.directory / f"{graph}_{precision}.engine"
            entry = build_engine(
                path, output, precision=precision, flavor="rtx", options=EngineOptions(targets=TARGETS)
            ).entry
            assert entry.engine is not None
            made.append(
                Built(called, entry.precision, exported.manifest.entry(path.name).nodes, entry.size, entry.engine)
            )
            print(model, batch, called, precision, entry.engine.layers, flush=True)
    return made


def lines(model: str, batch: int, made: list[Built]) -> list[str]:
    """Return the table's rows."""
    dense = {built.precision: built.info.layers for built in made if built.graph == "dense"}
    rows = []
    for built in made:
        added = "" if built.graph == "dense" else built.info.layers - dense[built.precision]
        figures = (built.nodes, built.info.layers, added, f"{built.size / 1e6:.1f}", built.info.build_seconds)
        rows.append(
            "| " + " | ".join(str(cell) for cell in (model, batch, built.graph, built.precision, *figures)) + " |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="digits,deit_s")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/engines.md"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        engines = {
            (model, batch): build(model, batch, Path(place))
            for model in arguments.models.split(",")
            for batch in (1, 4)
        }
    version = next(iter(engines.values()))[0].info.version
    text = [line for (model, batch), made in engines.items() for line in lines(model, batch, made)]
    head = HEAD.format(version=version, targets=" and ".join(TARGETS))
    arguments.output.write_text(head + "\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
