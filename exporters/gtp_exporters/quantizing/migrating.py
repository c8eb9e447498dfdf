"""Moves scales of activations into weights, exactly: what is hard to quantise in an input is not so in weights.

A product's input is divided by a power of two for each channel, and its weights are multiplied with it. What divides
costs nothing where a node before it can: a LayerNormalization that feeds products alone has its scale and shift
divided, and the product of the values, whose channels attention's second product and transposes only mix over tokens,
has its outputs divided. A GELU in between lets no scale through: there a Mul divides, where that pays.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gtp_exporters.graph.structure import Product
from gtp_exporters.quantizing.samples import Sample
from gtp_exporters.quantizing.scales import Scaling, best, unscaled

MOVING = ("Reshape", "Transpose")
WORTH, PAYS = 5e-4, 2.0  # a Mul is for inputs that lose so much, and so many times as much as with it


@dataclass(frozen=True)
class Group:
    """Products with (C, outputs) weights that take the same value, and what can divide it.

    Attributes:
        value: its name.
        nodes: the products.
        giver: the node whose weights are divided; None where only a node of its own could divide it.
    """

    value: str
    nodes: tuple[ir.Node, ...]
    giver: ir.Node | None

    @property
    def taken(self) -> str:
        """The name of what the products take now."""
        value = self.nodes[0].inputs[0]
        assert value is not None
        return str(value.name)

    @property
    def weights(self) -> list[np.ndarray]:
        """(C, outputs) of each product."""
        return [_table(node) for node in self.nodes]

    @property
    def biased(self) -> list[bool]:
        """Whether each product adds a bias that is a weight."""
        biases = [node.inputs[2] if len(node.inputs) > 2 else None for node in self.nodes]
        return [bias is not None and bias.is_initializer() for bias in biases]


def groups(model: ir.Model, products: Sequence[Product]) -> list[Group]:
    """Return the products whose weights are matrices by what they take, in order."""
    nodes = {node.name: node for node in model.graph}
    by_value: dict[str, list[ir.Node]] = {}
    for product in products:
        node = nodes[product.node]
        if len(product.inputs) == 1 and node.op_type in ("Gemm", "MatMul") and _matrix(node):
            by_value.setdefault(product.inputs[0], []).append(node)
    return [Group(value, tuple(members), _giver(members)) for value, members in by_value.items()]


def _matrix(node: ir.Node) -> bool:
    weight, shape = node.inputs[1], None if node.inputs[1] is None else node.inputs[1].shape
    return weight is not None and weight.is_initializer() and shape is not None and len(shape) == 2


def turned(node: ir.Node) -> bool:
    """Whether a product's weights are (outputs, C)."""
    attribute = node.attributes.get("transB")
    return attribute is not None and bool(attribute.as_int())


def _table(node: ir.Node) -> np.ndarray:
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    table = weight.const_value.numpy()
    return table.T if turned(node) else table


def _giver(members: Sequence[ir.Node]) -> ir.Node | None:
    """Return the node that can divide what all of these products, and nothing else, take."""
    value = members[0].inputs[0]
    if value is None or not _only_feeds(value, members) or not all(_own(node, (1,)) for node in members):
        return None
    producer = value.producer()
    if producer is None:
        return None
    if producer.op_type == "LayerNormalization":
        return producer if _own(producer, (1, 2)) and _last_axis(producer) else None
    return _of_values(producer) if len(members) == 1 else None


def _only_feeds(value: ir.Value, members: Collection[ir.Node]) -> bool:
    return not value.is_graph_output() and all(use.node in members and use.idx == 0 for use in value.uses())


def _own(node: ir.Node, places: Sequence[int]) -> bool:
    """Whether these inputs, as far as there are any, are weights that no other node has."""
    values = [node.inputs[place] for place in places if place < len(node.inputs) and node.inputs[place] is not None]
    return bool(values) and all(is_own(value) for value in values)


def is_own(value: ir.Value | None) -> bool:
    """Whether a value is a weight that a single node takes."""
    return value is not None and value.is_initializer() and value.const_value is not None and len(value.uses()) == 1


def _last_axis(node: ir.Node) -> bool:
    axis, scale = node.attributes.get("axis"), node.inputs[1]
    shape = node.outputs[0].shape
    assert scale is not None
    one = scale.shape is not None and len(scale.shape) == 1
    return one and (axis is None or axis.as_int() == -1 or (shape is not None and axis.as_int() == len(shape) - 1))


def _of_values(node: ir.Node) -> ir.Node | None:
    """Return the product of the values where a node puts out what attention made of them, channels in order."""
    attention = _back(node)
    if attention is None or attention.op_type != "MatMul":
        return None
    source = attention.inputs[1].producer() if attention.inputs[1] is not None else None
    product = None if source is None or not _single(attention) else _back(source)
    if product is None or product.op_type not in ("Gemm", "MatMul") or not _matrix(product):
        return None
    widths = {_table(product).shape[1], _width(node.outputs[0])}
    return product if len(widths) == 1 and _single(product) and _own(product, (1, 2)) else None


def _back(node: ir.Node) -> ir.Node | None:
    """Return the first node before one that does more than split and merge heads, with nothing else fed on the way."""
    while node.op_type in MOVING:
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        if before is None or not _single(node) or (node.op_type == "Transpose" and not _swaps_heads(node)):
            return None
        node = before
    return node


def _single(node: ir.Node) -> bool:
    return not node.outputs[0].is_graph_output() and len(node.outputs[0].uses()) == 1


def _swaps_heads(node: ir.Node) -> bool:
    """Whether heads and tokens change places, (..., a, b, D) to (..., b, a, D)."""
    perm = list(node.attributes["perm"].as_ints())
    count = len(perm)
    return count >= 3 and perm == [*range(count - 3), count - 2, count - 3, count - 1]


def _width(value: ir.Value) -> int | None:
    return None if value.shape is None or not isinstance(value.shape[-1], int) else value.shape[-1]


def migrate(members: Sequence[Group], samples: Mapping[str, Sample], *, symmetric: bool) -> dict[str, Scaling]:
    """Choose the scales of what each group takes, and move them into weights, in place.

    Args:
        members: groups of a float32 graph; its outputs stay the same, bit for bit.
        samples: what the values are, by name.
        symmetric: inputs are int8 with zero point 0.

    Returns:
        What was chosen for each value; scales of 1 where nothing divides it.
    """
    chosen = {}
    for group in members:
        sample, weights = samples[group.value], group.weights
        plain = unscaled(sample, weights, symmetric=symmetric)
        divided = best(sample, weights, symmetric=symmetric)
        if group.giver is None and (plain.error < WORTH or plain.error < PAYS * divided.error):
            chosen[group.value] = plain
            continue
        chosen[group.value] = divided
        if (divided.scales != 1).any():
            _move(group, divided.scales)
    return chosen


def _move(group: Group, scales: np.ndarray) -> None:
    for node in group.nodes:
        _multiply(node, 1, scales if turned(node) else scales[:, None])
    giver = group.giver
    if giver is None:
        _divide(group, scales)
        return
    by_output = giver.op_type != "LayerNormalization" and turned(giver)
    _multiply(giver, 1, 1 / (scales[:, None] if by_output else scales))
    if len(giver.inputs) > 2 and giver.inputs[2] is not None:
        _multiply(giver, 2, 1 / scales)


def _divide(group: Group, scales: np.ndarray) -> None:
    """Divide what the products of a group take by a node of its own."""
    first, value = group.nodes[0], group.nodes[0].inputs[0]
    assert value is not None and first.graph is not None
    name = f"{value.name}.scales"
    factor = ir.Value(name=name, const_value=ir.tensor(1 / scales, name=name))
    factor.shape, factor.dtype = ir.Shape(scales.shape), ir.DataType.FLOAT
    graph = first.graph
    assert isinstance(graph, ir.Graph)
    graph.register_initializer(factor)
    divided = ir.Value(name=f"{value.name}.divided", shape=value.shape, type=value.type)
    graph.insert_before(first, ir.node("Mul", [value, factor], outputs=[divided], name=f"{first.name}.divide"))
    for node in group.nodes:
        node.replace_input_with(0, divided)


def _multiply(node: ir.Node, place: int, factor: np.ndarray) -> None:
    value = node.inputs[place]
    assert value is not None and value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * factor.astype(np.float32), name=value.name)
