"""``gtp-export triton``: a model repository for Triton Inference Server."""

from pathlib import Path
from typing import Annotated

import typer

from gtp_export import console
from gtp_export.options import Json


def triton(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="An artifact directory or a file of it (.onnx, .engine); several: the same model for other batches.",
            show_default=False,
        ),
    ],
    repository: Annotated[
        Path, typer.Option("-o", "--output", help="The model repository to write.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="The model's name (default: the recipe's).", show_default=False)
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Triton's backend: auto (by the file), onnxruntime, openvino, tensorrt.")
    ] = "auto",
    instances: Annotated[int, typer.Option(help="Number of instances of the model.", min=1)] = 1,
    kind: Annotated[str, typer.Option(help="Device of the instances: auto, gpu, cpu.")] = "auto",
    cuda_graphs: Annotated[
        bool | None,
        typer.Option(help="Use CUDA graphs (default: for engines).", show_default=False),
    ] = None,
    max_delay: Annotated[
        int | None,
        typer.Option(
            help="With a range of batches or several: microseconds to wait for more requests (default: 1000).",
            min=0,
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a model repository for Triton Inference Server."""
    from gtp_exporters.triton import TritonOptions, write_repository

    options = TritonOptions(name, backend, instances, kind, cuda_graphs, max_delay)
    with console.progress("writing the model repository"):
        folders = write_repository(paths, repository, options)
    if json:
        console.emit({"repository": str(repository), "models": [folder.name for folder in folders]})
        return
    console.out.print(f"wrote {repository}: {' '.join(folder.name for folder in folders)}", markup=False)
    console.out.print(f"next: tritonserver --model-repository {repository.resolve()}", markup=False)
