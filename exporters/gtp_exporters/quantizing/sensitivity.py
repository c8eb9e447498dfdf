"""What each layer loses in int8, from one pass of the float graph: only what comes after a layer runs again.

The float graph runs once on the probes and keeps the tokens where each layer begins. From there on the rest runs with
the layer's inputs and weights rounded as int8 has them, in float, so that nothing is quantised for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gtp_exporters.agreement import make_session
from gtp_exporters.graph.files import without_unused
from gtp_exporters.graph.structure import Product
from gtp_exporters.quantizing.quantizer import Source
from gtp_exporters.quantizing.rounding import steps
from gtp_exporters.quantizing.samples import with_outputs
from gtp_exporters.quantizing.scales import step_of, weight_rounded
from gtp_runtime.accuracy import cosine, divergence
from gtp_runtime.messages import Progress

REACH = 40  # nodes before a layer among which the place with the fewest values to keep is looked for
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class LayerLoss:
    """What a layer costs when it alone is int8: mean divergence in nats, or 1 - cosine for features."""

    layer: str
    loss: float


@dataclass(frozen=True)
class Suffix:
    """A graph from some node on: ``place`` of that node, and the values before that it needs."""

    place: int
    values: tuple[ir.Value, ...]


def losses(
    source: Source, batches: Sequence[np.ndarray], progress: Progress, threads: int, activation: str | None = "softmax"
) -> list[LayerLoss]:
    """Return what each layer loses, the worst first.

    Args:
        source: calibrated.
        batches: inputs of the graph.
        progress: told the share done.
        threads: 0 for all.
        activation: what makes probabilities of logits: "softmax" or "sigmoid"; None where the outputs are none.
    """
    model = source.model
    layers: dict[str, list[Product]] = {}
    for product in source.products:
        layers.setdefault(product.label, []).append(product)
    places = {node.name: index for index, node in enumerate(model.graph)}
    starts = suffixes(model, [min(places[member.node] for member in members) for members in layers.values()])
    kept = _values(model, starts, batches, threads)
    expected, output = kept[str(model.graph.outputs[0].name)], model.graph.outputs[0].name
    found = []
    for done, ((label, members), suffix) in enumerate(zip(layers.items(), starts, strict=True)):
        progress("measuring what each layer loses", done / len(layers))
        session = make_session(_rounded(source, suffix, members), threads)
        names = [given.name for given in session.get_inputs()]
        runs = [session.run([output], {name: kept[name][run] for name in names})[0] for run in range(len(batches))]
        found.append(LayerLoss(label, distance(expected, runs, activation)))
    return sorted(found, key=lambda layer: -layer.loss)


def distance(expected: Sequence[np.ndarray], outputs: Sequence[np.ndarray], activation: str | None) -> float:
    """Return the mean divergence in nats of (B, classes) logits, or 1 - cosine of features (no activation)."""
    left, right = np.concatenate(expected), np.concatenate(outputs)
    apart = 1 - cosine(left, right) if activation is None else divergence(left, right, activation)
    return float(np.nan_to_num(apart, nan=np.inf).mean())


def suffixes(model: ir.Model, places: Sequence[int]) -> list[Suffix]:
    """Return where the graph may start again for nodes at these places: not after them, with little to keep."""
    nodes = list(model.graph)
    live = _live(nodes)
    sizes = [sum(_size(value) for value in values) for values in live]
    starts = [
        min(range(max(0, place - REACH), place + 1), key=lambda index: (sizes[index], -index)) for place in places
    ]
    return [Suffix(start, tuple(live[start])) for start in starts]


def _live(nodes: Sequence[ir.Node]) -> list[list[ir.Value]]:
    """Return for each node the values from before it that it or a later node takes, weights left out."""
    made = {value: index for index, node in enumerate(nodes) for value in node.outputs}
    needed: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        for value in node.inputs:
            if value is not None and not value.is_initializer():
                needed[value] = index
    return [
        [value for value, last in needed.items() if made.get(value, -1) < index <= last] for index in range(len(nodes))
    ]


def _size(value: ir.Value) -> int:
    return 1 if value.shape is None else int(np.prod([size for size in value.shape if isinstance(size, int)]))


def _values(
    model: ir.Model, starts: Sequence[Suffix], batches: Sequence[np.ndarray], threads: int
) -> dict[str, list[np.ndarray]]:
    """Return the values that suffixes begin with, and the first output, by name, one entry a batch."""
    image = str(model.graph.inputs[0].name)
    wanted = dict.fromkeys(str(value.name) for start in starts for value in start.values if value.name != image)
    names = list(wanted | {str(model.graph.outputs[0].name): None})
    session = make_session(with_outputs(model, names), threads)
    runs = [session.run(names, {image: batch}) for batch in batches]
    kept = {name: [run[index] for run in runs] for index, name in enumerate(names)}
    return kept | {image: list(batches)}


def _rounded(source: Source, suffix: Suffix, members: Sequence[Product]) -> ir.Model:
    """Return the rest of a graph, with the inputs and the weights of some products rounded."""
    copy, ranges = source.model.clone(), source.ends
    graph, nodes = copy.graph, list(copy.graph)
    by_name = {node.name: node for node in nodes}
    for product in members:
        _round_product(copy, by_name[product.node], ranges, source)
    del graph.outputs[1:]
    before = nodes[: suffix.place]
    made = {str(value.name): value for node in before for value in node.outputs}
    made |= {str(value.name): value for value in graph.inputs}
    inputs = []
    for value in suffix.values:
        given = ir.Value(name=value.name, shape=value.shape, type=value.type)
        ir.convenience.replace_all_uses_with(made[str(value.name)], given)
        inputs.append(given)
    graph.inputs[:] = inputs
    for node in reversed(before):
        graph.remove(node, safe=True)
    return without_unused(copy)


def _round_product(model: ir.Model, node: ir.Node, ranges: Ranges, source: Source) -> None:
    """Round the inputs of a product to 8 bits within their ranges, and constant weights, in place."""
    for place, value in enumerate(node.inputs[:2]):
        if value is None:
            continue
        if value.is_initializer():
            _round_weight(model, node, place, source.codes.get(str(node.name)), source.form.largest)
        else:
            low, high = ranges[str(value.name)]
            symmetric = source.form.symmetric
            node.replace_input_with(place, _quantised(model, node, value, low, high, symmetric=symmetric))
    if str(node.name) in source.shifts:
        _shift_bias(model, node, source.shifts[str(node.name)])


def _shift_bias(model: ir.Model, node: ir.Node, shift: np.ndarray) -> None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and bias.const_value is not None:
        node.replace_input_with(2, _constant(model, f"{node.name}.shifted", bias.const_value.numpy() + shift))


def _quantised(
    model: ir.Model, node: ir.Node, value: ir.Value, low: float, high: float, *, symmetric: bool
) -> ir.Value:
    step, zero = step_of(low, high, symmetric=symmetric)
    kind = np.int8 if symmetric else np.uint8
    name = f"{node.name}.{value.name}"
    scale = _constant(model, f"{name}.scale", np.asarray(step, np.float32))
    offset = _constant(model, f"{name}.zero", np.asarray(zero, kind))
    quantised = ir.node("QuantizeLinear", [value, scale, offset])
    back = ir.node("DequantizeLinear", [quantised.outputs[0], scale, offset])
    quantised.outputs[0].name, back.outputs[0].name = f"{name}.quantised", f"{name}.rounded"
    model.graph.insert_before(node, [quantised, back])
    return back.outputs[0]


def _constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.tensor(array).dtype
    model.graph.register_initializer(value)
    return value


def _round_weight(model: ir.Model, node: ir.Node, place: int, codes: np.ndarray | None, largest: int) -> None:
    value = node.inputs[place]
    assert value is not None and value.const_value is not None
    array = value.const_value.numpy()
    first = _outputs_first(node)
    table = array.reshape(len(array), -1).T if first else array
    rounded = weight_rounded(table, largest) if codes is None else (codes.T if first else codes) * steps(table, largest)
    rounded = rounded.T.reshape(array.shape) if first else rounded
    node.replace_input_with(place, _constant(model, f"{node.name}.rounded", np.ascontiguousarray(rounded)))


def _outputs_first(node: ir.Node) -> bool:
    attribute = node.attributes.get("transB")
    return node.op_type == "Conv" or (attribute is not None and bool(attribute.as_int()))
