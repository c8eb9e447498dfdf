"""Builds, proves and times on this machine's GPU with whatever runs there; writes benchmarks/results/gpu-results.md.

    make setup TORCH_INDEX=https://download.pytorch.org/whl/cu128   # a torch that sees the GPU, in place of the CPU one
    .venv/bin/pip install onnxruntime-gpu tensorrt                  # what is to be measured beside TensorRT-RTX
    make gpu-check [ARGS="--models digits,deit_s --batch 1 --output FILE"]

For dense and GTP: TensorRT or TensorRT-RTX engines in every precision, ONNX Runtime's CUDA provider, eager PyTorch.
What cannot run is listed with the reason.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from folders import synthetic

from gtp_exporters import ExportOptions, QuantizeOptions, build_engine, export, quantize
from gtp_exporters.errors import ExportError
from gtp_models import Recipe, apply, build_model, load_recipe, remove
from gtp_runtime import Latency, benchmark, load
from gtp_runtime.backends.tensorrt.cuda import find_cuda
from gtp_runtime.backends.tensorrt.flavor import find_flavor
from gtp_runtime.errors import GTPRuntimeError
from gtp_runtime.latency import against_first, in_turn, summarise
from gtp_runtime.precisions import converted_names

PRECISIONS = converted_names("tensorrt")
SECONDS = 3.0


@dataclass
class Report:
    """Lines of the page, and what was skipped."""

    lines: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def table(self, title: str, results: list[Latency], parity: list[str]) -> None:
        self.lines += [
            f"\n### {title}\n",
            "| file | p50 ms | p99 ms | ratio | share | compute ms | enqueue ms | parity |",
        ]
        self.lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for result, proven in zip(results, parity, strict=True):
            stages = result.stages or {}
            share = "-" if result.share is None else f"{result.share:.0%}"
            parts = [f"{stages[name]:.3f}" if name in stages else "-" for name in ("compute", "enqueue")]
            name = Path(result.file).name
            cells = [name, f"{result.p50_ms:.3f}", f"{result.p99_ms:.3f}", f"{result.ratio:.3f}", share, *parts, proven]
            self.lines.append("| " + " | ".join(cells) + " |")

    def attempt(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (GTPRuntimeError, ExportError, RuntimeError, ImportError) as error:
            self.skipped.append(f"{what}: {' '.join(str(error).split())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="digits,deit_s")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gpu-results.md"))
    arguments = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as place:
        for name in arguments.models.split(","):
            check_model(report, load_recipe(name), arguments.batch, Path(place))
    arguments.output.write_text("\n".join([*head(), *report.lines, *skipped(report)]) + "\n", encoding="utf-8")
    print(f"wrote {arguments.output}; skipped {len(report.skipped)}")
    for line in report.skipped:
        print(f"  skipped {line}")


def head() -> Iterator[str]:
    given = " ".join(sys.argv[1:])
    yield "# On a GPU\n"
    yield f'Made by `make gpu-check ARGS="{given}"` on {time.strftime("%Y-%m-%d")}, {platform.machine()}.'
    try:
        device = find_cuda().describe()
        yield f"{device['gpu']}, compute capability {device['compute_capability']}, driver CUDA {device['driver']}."
    except GTPRuntimeError as error:
        yield f"No GPU was found: {error}."


def skipped(report: Report) -> Iterator[str]:
    if report.skipped:
        yield "\n## Skipped\n"
        yield from (f"- {line}" for line in report.skipped)


def check_model(report: Report, recipe: Recipe, batch: int, place: Path) -> None:
    weights = "pretrained" if recipe.weights else "random"
    options = ExportOptions(batch=batch, target="tensorrt")
    directory = export(recipe, place / recipe.name, weights=weights, options=options, check=False).directory
    report.lines.append(f"\n## {recipe.title}, batch {batch}, {weights} weights")
    for precision in PRECISIONS:
        report.attempt(f"{recipe.name} TensorRT {precision}", partial(engines, report, directory, precision))
    report.attempt(f"{recipe.name} TensorRT int8", partial(int8_engines, report, directory, recipe, place))
    report.attempt(f"{recipe.name} ONNX Runtime CUDA", lambda: onnxruntime_cuda(report, directory))
    report.attempt(f"{recipe.name} eager PyTorch", lambda: eager(report, recipe, weights, batch))


def engines(report: Report, directory: Path, precision: str) -> None:
    flavor = find_flavor()
    find_cuda()
    paths = [
        build_engine(directory / f"{graph}.onnx", directory / f"{graph}_{precision}.engine", precision=precision).path
        for graph in ("dense", "model")
    ]
    measure(report, f"{flavor.name} {flavor.version}, {precision}", paths)


def int8_engines(report: Report, directory: Path, recipe: Recipe, place: Path) -> None:
    flavor = find_flavor()
    find_cuda()
    images = recipe.calibration or synthetic(place / "synthetic")
    quantize(directory, QuantizeOptions("tensorrt", images, gate=recipe.calibration is not None))
    paths = [build_engine(directory / f"{graph}.int8.onnx").path for graph in ("dense", "model")]
    measure(report, f"{flavor.name} {flavor.version}, int8", paths)


def onnxruntime_cuda(report: Report, directory: Path) -> None:
    measure(report, "ONNX Runtime, CUDA", [directory / "dense.onnx", directory / "model.onnx"], provider="cuda")


def measure(report: Report, title: str, paths: list[Path], **options: Any) -> None:
    models = [load(path, **options) for path in paths]
    proven = ["ok" if parity.ok else "; ".join(parity.problems) for parity in (model.validate() for model in models)]
    report.table(title, benchmark(models, SECONDS), proven)
    for model in models:
        model.close()


@torch.inference_mode()
def eager(report: Report, recipe: Recipe, weights: str, batch: int) -> None:
    if not torch.cuda.is_available():
        raise RuntimeError("this PyTorch sees no CUDA device")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        dense, gtp = (build_model(recipe, weights).model.to("cuda", dtype) for _ in range(2))
        images = torch.randn(batch, 3, *dense.patch_embed.img_size, device="cuda", dtype=dtype)
        runs = [timed(remove(dense), images), timed(apply(gtp, recipe.settings()), images)]
        taken = in_turn(runs, SECONDS)
        results = [summarise(name, batch, times) for name, times in zip(("dense", "gtp"), taken, strict=True)]
        report.table(
            f"eager PyTorch {torch.__version__}, {dtype}", against_first(results, [0, 0], ["", ""]), ["-", "-"]
        )


def timed(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        model(images)
        torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main()
