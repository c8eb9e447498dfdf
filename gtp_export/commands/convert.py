"""``gtp-export convert``: the graphs of an export as files for another runtime, proven there."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export.options import Json, one_of, option
from gtp_export.running import MEASURED, THREADS
from gtp_exporters.converting.formats import FORMATS
from gtp_runtime.errors import GATE_FAILED

if TYPE_CHECKING:
    from gtp_exporters import Converted

ANYWHERE = {name: form for name, form in FORMATS.items() if not form.socs}  # build-engine compiles for one SoC
PRECISIONS = tuple(dict.fromkeys(name for form in ANYWHERE.values() for name in form.precisions))


def convert(
    directory: Annotated[Path, typer.Argument(help="An artifact directory with float32 graphs.", show_default=False)],
    to: Annotated[
        str, option("The format; coreml's files are not proven here.", "--to", show_default=False, **one_of(ANYWHERE))
    ],
    precision: Annotated[
        str,
        option(
            "Of the weights. litert and mnn have all; coreml: fp32, fp16; executorch: fp32, int8.",
            show_default=True,
            **one_of(PRECISIONS),
        ),
    ] = "fp32",
    calib_data: Annotated[
        Path | None, option("For int8: a folder of calibration images (default: the recipe's own).")
    ] = None,
    data: Annotated[
        Path | None, option("For int8: other images for its gate (default: as for quantize).", "--data")
    ] = None,
    check: Annotated[
        bool, option("Validate and time the files before they replace earlier ones.", show_default=True)
    ] = True,
    threads: Annotated[int | None, option(THREADS, min=0)] = None,
    json: Json = False,
) -> None:
    """Convert an export's graphs, reduced and dense, to files for another runtime, and prove them there."""
    if not directory.is_dir():
        raise typer.BadParameter(f"{directory} is not a folder: give the directory of an export")
    provable = to not in FORMATS or FORMATS[to].backend is not None
    if threads is not None and not (check and provable):
        reason = "--no-check" if provable else f"--to {to}, whose files do not run here"
        raise typer.BadParameter(f"--threads has no effect with {reason}: leave it out")
    used = MEASURED if threads is None else threads
    make(directory, to, used, json, precision=precision, check=check, calib_data=calib_data, data=data)


def make(directory: Path, to: str, threads: int, json: bool, **options: Any) -> None:
    """Convert, and print what was made; ``options`` are those of ``gtp_exporters.convert``.

    Raises:
        typer.Exit: with the code of a gate that failed.
    """
    with console.progress("converting") as update:
        from gtp_exporters import ParityFailedError, QuantizationFailedError
        from gtp_exporters import convert as run

        failed: ParityFailedError | QuantizationFailedError | None = None
        try:
            made = run(directory, to, threads=threads, progress=update, **options)
        except (ParityFailedError, QuantizationFailedError) as error:
            failed = error
    if failed is not None:
        console.err.print(f"error: {failed}", style="red", markup=False)
        raise typer.Exit(GATE_FAILED)
    if json:
        proof = made.proof
        console.emit(
            {
                "directory": str(made.directory),
                "files": {name: asdict(entry) for name, entry in made.files.items()},
                "parity": None if proof is None or proof.parity is None else proof.parity.to_dict(),
                "latency": [] if proof is None else [result.to_dict() for result in proof.latency],
                "gate": [report.to_dict() for report in made.reports],
            }
        )
    else:
        _show(made, to, threads)


def _show(made: "Converted", to: str, threads: int) -> None:
    from gtp_export.tables import gate_lines, latency_table, parity_lines

    proof = made.proof
    gate_lines(made.reports)
    if proof is not None and proof.parity is not None:
        used = f"{threads or 'all'} thread{'s' if threads != 1 else ''}"
        if proof.latency:
            latency_table(proof.latency, f"{to}, {used}, batch {proof.latency[0].batch}")
        parity_lines(proof.parity, "the reference's")
    sizes = ", ".join(f"{name} ({entry.size / 1e6:.1f} MB)" for name, entry in made.files.items())
    console.out.print(f"wrote {made.directory}: {sizes}", markup=False)
    if FORMATS[to].backend is None:
        console.note(f"{to} files do not run here, so they are not proven: {', '.join(made.files)}")
        console.next_command("inspect", made.directory)
    else:
        console.next_command("bench", made.directory / [*made.files][-1])
