"""Options that several commands share."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gtp_export.console import set_log_json, set_quiet, set_verbose

GraphPath = Annotated[Path, typer.Argument(help="A .onnx file, or an artifact directory.", show_default=False)]
ModelPath = Annotated[
    Path, typer.Argument(help="A .onnx or .engine file, or an artifact directory.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.")]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="A folder of images, one sub-folder per class; of any size.", show_default=False),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="With --data: a file that says the class of each image: a CSV, or ImageNet's ground truth.",
        show_default=False,
    ),
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
        help="Spread the work over the nodes of a Ray cluster: HOST:PORT of its head, or auto (docs/evaluating.md).",
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
LogJson = Annotated[
    bool,
    typer.Option(
        "--log-json",
        callback=set_log_json,
        is_eager=True,
        help="Write log messages, notes and errors on stderr as JSON, one document a line; -v adds debugging.",
    ),
]


def takes_log_json(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option ``--log-json``."""
    added = inspect.Parameter("log_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=LogJson)

    @functools.wraps(command)
    def run(*, log_json: bool = False, **given: Any) -> None:  # noqa: ARG001 - it acts by its callback
        command(**given)

    signature = inspect.signature(command)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])  # type: ignore[attr-defined]
    return run
