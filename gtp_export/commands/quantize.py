"""``gtp-export quantize``: the graphs of an export in int8, compared with fp32 before they count."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gtp_export import console
from gtp_export.options import ClassOrder, Json
from gtp_export.running import Threads
from gtp_export.values import finite
from gtp_exporters.quantizing.options import CALIBRATIONS, FORMS
from gtp_runtime.errors import GATE_FAILED

if TYPE_CHECKING:
    from gtp_exporters import Quantized


def quantize(
    directory: Annotated[Path, typer.Argument(help="An artifact directory with float32 graphs.", show_default=False)],
    target: Annotated[
        str, typer.Option(help=f"Runtime that runs the int8 graphs: {', '.join(FORMS)}.", show_default=False)
    ],
    calib_data: Annotated[
        Path | None,
        typer.Option(help="A folder of calibration images (default: the recipe's own).", show_default=False),
    ] = None,
    calib_size: Annotated[int, typer.Option(help="Maximum number of images, spread over the folder.", min=1)] = 512,
    calibration: Annotated[str, typer.Option(help=f"How ranges are measured: {', '.join(CALIBRATIONS)}.")] = "minmax",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Other images for the gate, one sub-folder per class if known (default: the reference's, else "
            "one in four of --calib-data, held out).",
            show_default=False,
        ),
    ] = None,
    class_order: ClassOrder = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Fail (exit code 3) if top-1 is more than this many points below fp32 (default: 1).",
            min=0,
            show_default=False,
            callback=finite,
        ),
    ] = None,
    keep_fp32: Annotated[
        str | None,
        typer.Option(
            help="Layers to keep in fp32: blocks.3.mlp.fc2,head; or auto: as few as the gate needs, the worst first.",
            show_default=False,
        ),
    ] = None,
    quantize_selection: Annotated[
        bool,
        typer.Option("--quantize-selection", help="Also quantise the products of token selection."),
    ] = False,
    weight_bits: Annotated[
        int | None,
        typer.Option(
            help="Bits of int8 weights: 8, or 7 for devices whose x86 CPU has no VNNI, where products saturate "
            "(default: what this CPU needs).",
            min=7,
            max=8,
            show_default=False,
        ),
    ] = None,
    gate: Annotated[
        bool, typer.Option(help="Fail (exit code 3) if int8 misses a limit; the figures are stored anyway.")
    ] = True,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Quantise an export's graphs, reduced and dense, to int8; they are kept if they are close to fp32."""
    if directory.suffix == ".onnx":
        raise typer.BadParameter(
            f"{directory} is a file: give its directory, all of whose graphs are quantised: "
            f"gtp-export quantize {directory.parent}"
        )
    kept = tuple(name.strip() for name in (keep_fp32 or "").split(",") if name.strip())
    with console.progress("quantising") as update:
        from gtp_exporters import QuantizationFailedError, QuantizeOptions
        from gtp_exporters import quantize as run

        options = QuantizeOptions(
            target,
            calib_data,
            calib_size,
            calibration,
            data,
            max_drop,
            kept,
            quantize_selection,
            gate,
            threads or 0,
            class_order,
            weight_bits,
        )
        failed: QuantizationFailedError | None = None
        try:
            export = run(directory, options, update)
        except QuantizationFailedError as error:
            failed = error
    from gtp_export.tables import gate_document, gate_failure

    if failed is not None:
        gate_failure(failed, json)
        raise typer.Exit(GATE_FAILED)
    if json:
        console.emit(
            gate_document(export.reports, export.losses) | {"kept_fp32": export.kept_fp32, "cost": export.cost}
        )
    else:
        _show(export)


def _show(made: "Quantized") -> None:
    from gtp_export.tables import gate_lines

    gate_lines(made.reports)
    if made.kept_fp32:
        cost = "" if made.cost is None else f", which takes {made.cost:.2f} of the time with all in int8"
        console.out.print(f"kept in fp32: {', '.join(made.kept_fp32)}{cost}", markup=False)
    sizes = ", ".join(f"{name} ({entry.size / 1e6:.1f} MB)" for name, entry in made.files.items())
    console.out.print(f"wrote {made.directory}: {sizes}", markup=False)
    console.next_command("bench", made.directory, "--precision", "int8")
