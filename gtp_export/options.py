"""Options that several commands share."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from gtp_export.console import set_quiet, set_verbose


class Provider(str, Enum):
    """ONNX Runtime's execution providers, by short name."""

    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "tensorrt"


class BackendName(str, Enum):
    """What runs a file."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    openvino = "openvino"
    tensorrt = "tensorrt"


class Compute(str, Enum):
    """What OpenVINO computes in."""

    fp32 = "fp32"
    bf16 = "bf16"


ModelPath = Annotated[Path, typer.Argument(help="A .onnx file, or an artifact directory.", show_default=False)]
Threads = Annotated[int, typer.Option(help="Threads to run with; 0 leaves it to the runtime.", min=0)]
ProviderOption = Annotated[Provider, typer.Option(help="ONNX Runtime's execution provider.")]
BackendOption = Annotated[BackendName, typer.Option(help="What runs the file; auto goes by its ending.")]
ComputeOption = Annotated[Compute, typer.Option(help="What OpenVINO computes in.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="A folder of images, one sub-folder a class.", show_default=False)
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", callback=set_verbose, help="Show libraries' warnings and tracebacks.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", callback=set_quiet, help="Show no progress.")]


def run_options(backend: BackendName, threads: int, provider: Provider, compute: Compute) -> dict[str, Any]:
    """Return the arguments of ``gtp_runtime.load`` that these options stand for."""
    return {
        "backend": backend.value,
        "threads": threads or None,
        "provider": provider.value,
        "compute": compute.value,
    }
