"""``gtp-export report``: a page that shows an export."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gtp_export import console
from gtp_export.options import Json
from gtp_export.running import RunOptions, takes_run_options

if TYPE_CHECKING:
    from gtp_exporters.report.samples import Sample


@takes_run_options()
def report(
    directory: Annotated[Path, typer.Argument(help="An artifact directory.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file to write (default: DIRECTORY/report.html).", show_default=False),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="An image whose tokens are shown; repeatable.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A folder of images; some of them are shown.", show_default=False),
    ] = None,
    *,
    running: RunOptions,
    json: Json = False,
) -> None:
    """Write one page, report.html, that shows an export: parity, accuracy, latency, layers, tokens and dense outputs.

    The page needs no network and no script. By default it shows images of the reference.
    """
    from gtp_exporters.report import write_report

    if images and data is not None:
        raise typer.BadParameter("--images and --data both say which images are shown: give one of the two")
    if not images and data is None and (running.given or running.backend != "auto"):
        raise typer.BadParameter("--backend and its options need --images or --data: nothing is run without")
    with console.progress("writing the report"):
        path = write_report(directory, output, _samples(directory, images or [], data, running))
    if json:
        console.emit({"path": str(path), "size": path.stat().st_size})
        return
    where = "" if output else " and its entry in model.json"
    console.out.print(f"wrote {path}{where}", markup=False)
    console.out.print(f"next: open {path} in a browser", markup=False)


def _samples(directory: Path, images: list[Path], data: Path | None, running: RunOptions) -> "list[Sample] | None":
    from gtp_exporters.report.samples import SHOWN, samples_of_files
    from gtp_runtime.images.folders import find_images, spread

    paths = images if data is None else spread(find_images(data), SHOWN)
    if not paths:
        return None
    with running.load(directory) as model, ExitStack() as stack:
        twin = running.load_twin(model) if model.manifest.is_dense else None
        return samples_of_files(model, paths, None if twin is None else stack.enter_context(twin))
