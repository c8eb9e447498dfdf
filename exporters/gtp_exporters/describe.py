"""What a graph file says of itself, and what the manifest says of it."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx

from gtp_exporters.precision import precision_of
from gtp_models.methods.settings import Settings
from gtp_models.weights import BuiltModel
from gtp_runtime.manifest import FileEntry, TensorSpec, file_sha256

PRODUCER = "gtp-export"
TOOLS = ("gtp-export", "torch", "timm", "onnx", "onnxscript", "onnxsim", "onnxruntime")


def strip(proto: onnx.ModelProto) -> None:
    """Take out what torch's exporter says of the machine: stack traces, paths, module names."""
    parts = (proto, proto.graph, *proto.graph.node, *proto.graph.value_info)
    parts += (*proto.graph.input, *proto.graph.output, *proto.graph.initializer)
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]


def describe(proto: onnx.ModelProto, built: BuiltModel, settings: Settings) -> None:
    """Repeat the essentials of the manifest in the graph."""
    proto.producer_name, proto.producer_version = PRODUCER, _version(PRODUCER)
    proto.graph.name = f"{built.recipe.name}-{settings.name}"
    essentials = {
        "model": built.recipe.timm,
        "method": settings.name,
        "settings": json.dumps(settings.to_dict()),
        "weights": f"{built.source} ({built.detail})",
        "weights_sha256": built.sha256,
    }
    onnx.helper.set_model_props(proto, essentials)


def file_entry(path: Path, proto: onnx.ModelProto, role: str, method: str, macs: int) -> FileEntry:
    """Save a graph and return its entry for the manifest."""
    onnx.save(proto, path)
    return FileEntry(
        role,
        file_sha256(path),
        path.stat().st_size,
        method=method,
        precision=precision_of(proto),
        macs=macs,
        nodes=len(proto.graph.node),
        inputs=[_spec(value) for value in proto.graph.input],
        outputs=[_spec(value) for value in proto.graph.output],
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(value.name, [size.dim_value for size in tensor.shape.dim], dtype)


def tool_versions() -> dict[str, str]:
    """Return the versions of what makes the files."""
    return {name: _version(name) for name in TOOLS}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
