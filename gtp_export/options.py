"""Options that several commands share."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from gtp_export.console import set_quiet, set_verbose


class Provider(str, Enum):
    """ONNX Runtime's execution providers, by short name."""

    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "tensorrt"


ModelPath = Annotated[Path, typer.Argument(help="A .onnx file, or an artifact directory.", show_default=False)]
Threads = Annotated[int, typer.Option(help="Threads to run with; 0 leaves it to the runtime.", min=0)]
ProviderOption = Annotated[Provider, typer.Option(help="ONNX Runtime's execution provider.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="A folder of images, one sub-folder a class.", show_default=False)
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", callback=set_verbose, help="Show libraries' warnings and tracebacks.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", callback=set_quiet, help="Show no progress.")]
