"""``gtp-export build-engine``: a TensorRT engine from an exported graph."""

import os
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gtp_export import console
from gtp_export.options import Json, ModelPath, Quiet, Verbose

if TYPE_CHECKING:
    from gtp_exporters import Engine


class FlavorName(str, Enum):
    """TensorRT, TensorRT-RTX, or whichever is installed."""

    auto = "auto"
    tensorrt = "tensorrt"
    rtx = "rtx"


class PrecisionName(str, Enum):
    """Precisions that are written into the graph."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


def build_engine(
    path: ModelPath,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The engine; beside the graph, as .engine, without.", show_default=False),
    ] = None,
    precision: Annotated[
        PrecisionName | None, typer.Option(help="Written into the graph; the graph's own without.", show_default=False)
    ] = None,
    flavor: Annotated[FlavorName, typer.Option(help="Which TensorRT builds.")] = FlavorName.auto,
    target: Annotated[
        str | None,
        typer.Option(help="Build ahead of time for these, with RTX and without a GPU: sm86,sm89.", show_default=False),
    ] = None,
    workspace: Annotated[int | None, typer.Option(help="MiB for a layer's work.", show_default=False)] = None,
    opt_level: Annotated[int | None, typer.Option(help="0 to 5: how much to try.", show_default=False)] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="Measured kernels, kept and reused; a file of the user's cache without.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Build a TensorRT engine on this machine, or ahead of time with TensorRT-RTX; needs neither torch nor timm."""
    from gtp_exporters import EngineOptions
    from gtp_exporters import build_engine as run

    targets = tuple(name.strip().lower() for name in (target or "").split(",") if name.strip())
    options = EngineOptions(workspace, opt_level, timing_cache or default_timing_cache(), targets)
    wanted = "rtx" if targets and flavor is FlavorName.auto else flavor.value
    with console.progress("building") as update:
        engine = run(
            path,
            output,
            precision=None if precision is None else precision.value,
            flavor=wanted,
            options=options,
            progress=update,
        )
    if json:
        console.emit({"path": str(engine.path), **asdict(engine.entry)})
    else:
        _show(engine)


def default_timing_cache() -> Path:
    """Where measured kernels are kept between builds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gtp-export" / "timing.cache"


def _show(engine: "Engine") -> None:
    from gtp_export.reports import describe_engine

    entry, info = engine.entry, engine.entry.engine
    assert info is not None
    described = f"{entry.precision}, {entry.size / 1e6:.1f} MB, {describe_engine(info)}"
    console.out.print(described, markup=False)
    console.out.print(f"wrote {engine.path} and its entry in model.json", markup=False)
    where = "" if info.gpu else " (on the device)"
    console.out.print(f"next{where}: gtp-export validate {engine.path}", markup=False)
