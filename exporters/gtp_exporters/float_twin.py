"""The float32 graph that a graph in another precision was made from, kept until the export is proven.

It is the dense one, where there is one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx_ir as ir

from gtp_exporters.agreement import make_session
from gtp_exporters.draft import Draft
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.files import DATA_SUFFIX, read, save
from gtp_exporters.quantizing.images import batches, prepared
from gtp_runtime.precisions import PRECISIONS

PREFIX = "float32."  # of the file's name; no manifest lists the file, so it is not part of the export
RUNS = 4


@dataclass(frozen=True)
class Twins:
    """A graph and its float32 twin, both with inferred shapes; role and precision; inputs from the reference."""

    role: str
    precision: str
    lowered: ir.Model
    float: ir.Model
    inputs: list[np.ndarray]


def keep_float(model: ir.Model, path: Path, precision: str) -> None:
    """Write a float32 graph beside the one in this precision that ``path`` will be, if it needs a twin."""
    if precision != "fp32" and PRECISIONS[precision].prover == "onnxruntime":  # which compares it with its twin
        save(model, path.with_name(PREFIX + path.name))


def read_twins(draft: Draft) -> Twins | None:
    """Read the twins of an export that is not in its place yet; None for one in float32 or bf16."""
    directory, manifest = draft.directory, draft.manifest
    name = next((name for name in manifest.files if (directory / (PREFIX + name)).exists()), None)
    if name is None:
        return None
    entry, kept = manifest.entry(name), PREFIX + name
    data = kept + DATA_SUFFIX
    lowered = read(directory / name, entry.external_data)
    plain = read(directory / kept, data if (directory / data).exists() else None)
    pixels = batches(draft.reference.images, entry.inputs[0].shape[0])
    inputs = [prepared(batch, entry, manifest) for batch in islice(pixels, RUNS)]
    return Twins(entry.role, entry.precision, infer_shapes(lowered), infer_shapes(plain), inputs)


def values_of(
    model: ir.Model, names: Sequence[str], inputs: Sequence[np.ndarray], threads: int
) -> Iterator[list[np.ndarray]]:
    """Yield values inside a graph by their names, for one input after another: those of all would fill the memory."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    there = {value.name for value in copy.graph.outputs}
    copy.graph.outputs.extend(values[name] for name in names if name not in there)
    session = make_session(copy, threads)
    for batch in inputs:
        yield session.run(list(names), {session.get_inputs()[0].name: batch})


def largest_of(model: ir.Model, names: Sequence[str], inputs: Sequence[np.ndarray], threads: int) -> dict[str, float]:
    """Return the largest absolute value of each value inside a graph, over all inputs; they are taken in the graph."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    values |= {value.name: value for value in copy.graph.inputs}
    tops = {}
    for name in names:
        absolute = ir.node("Abs", [values[name]], outputs=[ir.Value(name=f"{name}.absolute")])
        top = ir.Value(name=f"{name}.top", shape=ir.Shape([]), type=ir.TensorType(ir.DataType.FLOAT))
        copy.graph.extend([absolute, ir.node("ReduceMax", absolute.outputs, {"keepdims": 0}, outputs=[top])])
        tops[name] = top
    del copy.graph.outputs[:]
    copy.graph.outputs.extend(tops.values())
    session = make_session(copy, threads)
    feed = session.get_inputs()[0].name
    largest = np.max([session.run([top.name for top in tops.values()], {feed: batch}) for batch in inputs], axis=0)
    return dict(zip(tops, map(float, largest), strict=True))
