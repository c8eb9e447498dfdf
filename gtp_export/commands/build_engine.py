"""``gtp-export build-engine``: a TensorRT engine from an exported graph, or contexts for Qualcomm's NPU."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export.commands.convert import make
from gtp_export.options import GraphPath, Json, one_of, option
from gtp_export.running import MEASURED
from gtp_exporters.converting.formats import FORMATS
from gtp_exporters.converting.qnn import SOCS
from gtp_runtime.backends.tensorrt.flavor import MODULES, find_flavor
from gtp_runtime.precisions import converted_names

if TYPE_CHECKING:
    from gtp_exporters import Engine

QNN = "qnn"


def build_engine(
    path: GraphPath,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The engine file, in the artifact directory (default: the graph's name with .engine).",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(converted_names('tensorrt'))}: converts the graph before the build (default: its own). "
            f"With --target qnn: {', '.join(FORMATS[QNN].precisions)} (default: {FORMATS[QNN].precisions[0]}).",
            show_default=False,
        ),
    ] = None,
    flavor: Annotated[
        str, typer.Option(help=f"Which TensorRT to use: auto (the first that is installed), {', '.join(MODULES)}.")
    ] = "auto",
    target: Annotated[
        str | None,
        typer.Option(
            help="What to build for without the device: compute capabilities with TensorRT-RTX, sm86,sm89, or qnn, "
            "Qualcomm's NPU (default: this GPU).",
            show_default=False,
        ),
    ] = None,
    soc: Annotated[
        str | None,
        option("With --target qnn: the SoC.", **one_of(SOCS)),
    ] = None,
    calib_data: Annotated[
        Path | None,
        option("With --target qnn --precision int8: a folder of calibration images (default: the recipe's own)."),
    ] = None,
    data: Annotated[
        Path | None,
        option("With --target qnn --precision int8: other images for its gate (default: as for quantize).", "--data"),
    ] = None,
    workspace: Annotated[
        int | None,
        typer.Option(help="MiB of workspace memory that a layer may use (default: TensorRT's).", show_default=False),
    ] = None,
    opt_level: Annotated[
        int | None,
        typer.Option(help="Builder optimization level, 0 to 5 (default: TensorRT's, 3).", show_default=False),
    ] = None,
    opt_batch: Annotated[
        int | None,
        option("With a range of batches: the images per run to choose kernels for (default: the most).", min=1),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            help="File with kernel timings, reused by later builds (default: ~/.cache/gtp-export/timing.cache).",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="For a signed directory: this device's private key, which signs it again.", show_default=False
        ),
    ] = None,
    trusted_key: Annotated[
        Path | None,
        typer.Option(help="For a signed directory: public key that must have signed it.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Build a TensorRT engine from an exported graph, or contexts for Qualcomm's NPU; needs neither torch nor timm."""
    from gtp_exporters import EngineOptions
    from gtp_exporters import build_engine as run

    targets = tuple(name.strip().lower() for name in (target or "").split(",") if name.strip())
    images = {"calib_data": calib_data, "data": data}
    if QNN in targets or soc is not None:
        others = {"-o": output, "--workspace": workspace, "--opt-level": opt_level, "--opt-batch": opt_batch}
        others |= {"--timing-cache": timing_cache, "--key": key, "--trusted-key": trusted_key}
        given = [name for name, value in others.items() if value is not None]
        _build_contexts(path, targets, given, json, soc=soc, precision=precision, **images)
        return
    if any(images.values()):
        raise typer.BadParameter(f"--calib-data and --data are for --target {QNN} --precision int8: leave them out")
    wanted = "rtx" if targets and flavor == "auto" else flavor
    if timing_cache is not None and find_flavor(wanted).name == "rtx":
        raise typer.BadParameter("--timing-cache has no effect with TensorRT-RTX, which keeps none: leave it out")
    options = EngineOptions(workspace, opt_level, timing_cache or default_timing_cache(), targets, opt_batch)
    with console.progress("building") as update:
        engine = run(
            path,
            output,
            precision=precision,
            flavor=wanted,
            options=options,
            progress=update,
            key=key,
            trusted_key=trusted_key,
        )
    if json:
        console.emit({"path": str(engine.path), **asdict(engine.entry)})
    else:
        _show(engine)


def _build_contexts(path: Path, targets: tuple[str, ...], others: list[str], json: bool, **options: Any) -> None:
    """Build a context of the reduced graph and one of the dense baseline, and prove them.

    Args:
        path: of the export.
        targets, others: what was given: targets, and names of options that are not for contexts.
        json: as for the command.
        options: of ``gtp_exporters.convert``.
    """
    if targets != (QNN,) or options["soc"] is None:
        raise typer.BadParameter(f"--target {QNN} and --soc go together: --target {QNN} --soc {next(iter(SOCS))}")
    if others:
        raise typer.BadParameter(f"{', '.join(others)}: not for --target {QNN}: leave it out")
    if not path.is_dir():
        raise typer.BadParameter(
            f"{path} is no folder: --target {QNN} takes the directory of an export, for both graphs"
        )
    make(path, QNN, MEASURED, json, **options)


def default_timing_cache() -> Path:
    """Return the default timing cache: kernel timings that later builds reuse."""
    from gtp_runtime.machine import user_cache

    return user_cache() / "timing.cache"


def _show(engine: "Engine") -> None:
    from gtp_export.tables import describe_engine

    entry, info = engine.entry, engine.entry.engine
    assert info is not None
    described = f"{entry.precision}, {entry.size / 1e6:.1f} MB, {describe_engine(info)}"
    console.out.print(described, markup=False)
    console.out.print(f"wrote {engine.path} and its entry in model.json", markup=False)
    where = "" if info.gpu else " (on the device)"
    console.out.print(f"next{where}: gtp-export validate {engine.path}", markup=False)
