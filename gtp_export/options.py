"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from gtp_export.console import set_quiet, set_verbose

GraphPath = Annotated[Path, typer.Argument(help="A .onnx file, or an artifact directory.", show_default=False)]
ModelPath = Annotated[
    Path, typer.Argument(help="A .onnx or .engine file, or an artifact directory.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.")]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="A folder of images, one sub-folder per class; of any size.", show_default=False),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Threads that read images (default: one per CPU).", min=1, show_default=False),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Spread the work over the nodes of a Ray cluster: HOST:PORT of its head, or auto (docs/fleet.md).",
        show_default=False,
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", callback=set_verbose, help="Show log messages, warnings of libraries, and tracebacks."
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", callback=set_quiet, help="Show no progress.")]
