"""What a graph file says of itself, and what the manifest says of it."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from gtp_exporters.graph.files import save
from gtp_runtime.manifest import BatchRange, FileEntry, TensorSpec, file_sha256

if TYPE_CHECKING:
    from gtp_models.methods.settings import Settings
    from gtp_models.weights import BuiltModel

PRODUCER = "gtp-export"
TOOLS = ("gtp-export", "torch", "timm", "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime")


def strip(model: ir.Model) -> None:
    """Remove what torch's exporter says of the machine: stack traces, paths, module names."""
    ClearMetadataAndDocStringPass()(model)
    model.doc_string = model.graph.doc_string = None
    model.graph.metadata_props.clear()
    for value in ir.convenience.create_value_mapping(model.graph).values():  # the pass leaves values as they are
        value.doc_string = None
        value.metadata_props.clear()


def describe(model: ir.Model, built: "BuiltModel", settings: "Settings") -> None:
    """Repeat the essentials of the manifest in the graph."""
    model.producer_name, model.producer_version = PRODUCER, _version(PRODUCER)
    model.graph.name = f"{built.recipe.name}-{settings.name}"
    essentials = {
        "model": built.recipe.timm,
        "method": settings.name,
        "settings": json.dumps(settings.to_dict()),
        "weights": f"{built.source} ({built.detail})",
        "weights_sha256": built.sha256,
    }
    model.metadata_props.clear()
    model.metadata_props.update(essentials)


def write_graph(
    path: Path,
    model: ir.Model,
    role: str,
    precision: str,
    method: str,
    macs: int,
    batch: BatchRange | None = None,
) -> dict[str, FileEntry]:
    """Save a graph and return the manifest's entries by file name: the graph's, and that of its weights beside it.

    Args:
        path: of the graph.
        model: the graph.
        role, precision, method, macs: as in ``FileEntry``.
        batch: how many images a run takes, where the first axis is free.
    """
    external = save(model, path)
    entry = FileEntry(
        role,
        file_sha256(path),
        path.stat().st_size,
        method=method,
        precision=precision,
        macs=macs,
        nodes=len(model.graph),
        inputs=[_spec(value, batch) for value in model.graph.inputs],
        outputs=[_spec(value, batch) for value in model.graph.outputs],
        external_data=external,
        batch=batch,
    )
    if external is None:
        return {path.name: entry}
    data = path.with_name(external)
    return {path.name: entry, external: FileEntry("data", file_sha256(data), data.stat().st_size)}


def _spec(value: ir.Value, batch: BatchRange | None) -> TensorSpec:
    assert value.name is not None and value.shape is not None and value.dtype is not None
    first = [] if batch is None else [batch.max]
    sizes = [size for size in value.shape[len(first) :] if isinstance(size, int)]
    return TensorSpec(value.name, first + sizes, value.dtype.numpy().name)


def tool_versions() -> dict[str, str]:
    """Return the versions of what makes the files."""
    return {name: _version(name) for name in TOOLS}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
