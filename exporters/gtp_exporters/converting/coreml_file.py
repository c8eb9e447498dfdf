"""A program that writes a zipped ML program of a graph, for Core ML: what it prints stays out of ours.

    python -m gtp_exporters.converting.coreml_file GRAPH.onnx TARGET.mlpackage.zip fp32|fp16

It converts on Linux. The program that comes out cannot run there, so what is checked is what can be read: it loads, and
its inputs and outputs have the names, shapes and types of the graph's.
"""

import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from gtp_exporters.converting.torch_graph import TorchGraph, example, read_graph
from gtp_exporters.errors import ConversionError
from gtp_exporters.graph.emitter import shape_of
from gtp_exporters.graph.precision import to_precision

SYSTEM = "iOS18"  # and macOS 15
Tensor = tuple[str, list[int], str]  # name, shape, numpy's name of its type


def write(graph: Path, target: Path, precision: str) -> None:
    """Write a file. In fp16, what decides which tokens leave stays float32, as in the graphs of ``export``.

    Raises:
        ConversionError: what was made has other inputs or outputs than the graph.
    """
    import coremltools

    model = to_precision(read_graph(graph), precision)
    inputs, outputs = _tensors(model.graph.inputs), _tensors(model.graph.outputs)
    program: Any = torch.export.export(TorchGraph(model).eval(), (example(model),)).run_decompositions({})
    made = coremltools.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=coremltools.target[SYSTEM],
        compute_precision=coremltools.precision.FLOAT32,  # each value has the type that the graph gives it
        inputs=[coremltools.TensorType(name, shape, np.dtype(kind).type) for name, shape, kind in inputs],
        outputs=[coremltools.TensorType(name, dtype=np.dtype(kind).type) for name, _, kind in outputs],
        skip_model_load=True,
    )
    with TemporaryDirectory(dir=target.parent) as place:
        package = Path(place) / target.stem
        made.save(str(package))
        check(package, inputs, outputs)
        _zip(package, target)


def check(package: Path, inputs: list[Tensor], outputs: list[Tensor]) -> None:
    """Check that a package loads, and that it has these inputs and outputs.

    Raises:
        ConversionError: others.
    """
    import coremltools

    about = coremltools.models.MLModel(str(package), skip_model_load=True).get_spec().description
    for expected, features in ((inputs, about.input), (outputs, about.output)):
        actual = {feature.name: _described(feature.type.multiArrayType) for feature in features}
        for name, shape, kind in expected:
            # Core ML has no shapes of outputs that it computes
            if actual.get(name) not in ((shape, kind), ([], kind)):
                raise ConversionError(f"coremltools made {actual} of {name} {shape} {kind}")


def _described(array: Any) -> tuple[list[int], str]:
    kinds = {array.FLOAT32: "float32", array.FLOAT16: "float16", array.INT32: "int32"}
    return list(array.shape), kinds.get(array.dataType, "another type")


def _tensors(values: Any) -> list[Tensor]:
    return [(str(value.name), shape_of(value), ir.DataType(value.dtype).numpy().name) for value in values]


def _zip(package: Path, target: Path) -> None:
    """Write the listing of a package and what it lists: a package is a folder, and a manifest lists files."""
    with zipfile.ZipFile(target, "w") as archive:
        for file in (package / "Manifest.json", *sorted((package / "Data").rglob("*.*"))):
            archive.write(file, file.relative_to(package.parent))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
