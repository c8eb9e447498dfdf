"""``gtp-export web``: a static site that runs an export in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from gtp_export import console
from gtp_export.options import Json
from gtp_export.running import Precision


def web(
    path: Annotated[Path, typer.Argument(help="An artifact directory, or a graph of it (.onnx).", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The folder to write; an earlier site is replaced.", show_default=False),
    ],
    precision: Precision = None,
    ort_web: Annotated[
        Path | None,
        typer.Option(
            "--ort-web",
            help="onnxruntime-web at hand: its .tgz or folder (default: npm fetches it).",
            show_default=False,
        ),
    ] = None,
    webgpu: Annotated[bool, typer.Option(help="Include what WebGPU needs, 27 MB.")] = True,
    dense: Annotated[bool, typer.Option(help="Include the dense baseline, to time beside it.")] = True,
    json: Json = False,
) -> None:
    """Write a static site that runs an export in a browser: parity, latency beside dense, a photo or the camera.

    The site needs no network but its own server, and no header of that.
    """
    from gtp_exporters.web import SiteOptions, write_site

    with console.progress("writing the site"):
        site = write_site(path, output, SiteOptions(ort_web, webgpu, dense), precision)
    if json:
        console.emit({"directory": str(site.directory), "files": site.files, "notes": site.notes})
        return
    console.table("", ("file", "kB"), [(name, f"{size / 1e3:.0f}") for name, size in site.files.items()])
    for note in site.notes:
        console.note(f"note: {note}")
    console.out.print(f"wrote {site.directory}: {sum(site.files.values()) / 1e6:.1f} MB", markup=False)
    console.out.print(
        f"next: python -m http.server --bind localhost --directory {site.directory} 8000, and open http://localhost:8000",
        markup=False,
    )
