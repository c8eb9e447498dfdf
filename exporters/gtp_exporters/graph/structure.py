"""What the nodes of a graph are for, by structure: what decides which tokens leave, and products with weights.

Products are named by where they stand in the model: "blocks.3.mlp.fc2".
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

PRODUCTS = ("Conv", "Gemm", "MatMul")
NORMALISING = ("LayerNormalization", "Log", "Pow", "ReduceMean")  # Log is of the sizes of tokens
QKV = "attn.qkv"
RANK = "rank"  # in front of the names of nodes that rank tokens where no TopK does (graph/ranks.py)
_WEIGHT = re.compile(r"(?:model\.)?(.+?)\.weight(?:\.scaled)?")


def deciding_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that decide which tokens leave: what TopK, or a rank, depends on.

    The way back from every one of these ends at products with weights and at the attention logits.
    """
    logits = {product for node in graph for product in attention_logits(node)}
    return _way_back([node for node in graph if _ranks(node)], ends=logits)


def _ranks(node: ir.Node) -> bool:
    return node.op_type == "TopK" or str(node.name).startswith(f"{RANK}.")


def summing_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that normalise, and the sums that they are of: the residual sums, and merging by size.

    The way back ends at products with weights and at those of attention.
    """
    maps = {node for node in graph if next(attention_logits(node), None) is not None}
    return _way_back([node for node in graph if node.op_type in NORMALISING], ends=maps)


def _way_back(starts: list[ir.Node], ends: Collection[ir.Node]) -> set[ir.Node]:
    """Return the nodes that some depend on, themselves included, up to products with weights and ``ends``."""
    way: set[ir.Node] = set()
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if node in way or node in ends or _is_weighted(node):
            continue
        way.add(node)
        waiting += node.predecessors()
    return way


def _is_weighted(node: ir.Node) -> bool:
    weights = (value is not None and value.is_initializer() for value in node.inputs[:2])
    return node.op_type in PRODUCTS and any(weights)


def attention_logits(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the product that an attention map is the softmax of, with or without a scale or mask between them.

    Nodes that are no softmax of a product have none.
    """
    if node.op_type != "Softmax":
        return
    sources = list(node.predecessors())
    if sources and sources[0].op_type in ("Add", "Mul"):
        sources = list(sources[0].predecessors())
    yield from (source for source in sources if source.op_type == "MatMul")


@dataclass(frozen=True)
class Product:
    """A product of a graph.

    Attributes:
        node: name of its node.
        label: where it stands: "blocks.3.attn.qkv", "blocks.3.mlp.fc2", "head". Queries, keys and values share one.
        inputs: names of its inputs that are no weights.
    """

    node: str
    label: str
    inputs: tuple[str, ...]


def constant_products(model: ir.Model, *, embedding: bool) -> list[Product]:
    """Return the products with constant weights, in order, without those that only help to decide which tokens leave.

    Args:
        model: a float32 graph in the order in which it was traced.
        embedding: the patch embedding's convolution as well.
    """
    deciding = deciding_nodes(model.graph)
    nodes = [
        node
        for node in model.graph
        if _is_constant_product(node) and (embedding or node.op_type != "Conv") and not _only_decides(node, deciding)
    ]
    return [_product(node, label) for node, label in zip(nodes, _labels(model.graph, nodes), strict=True)]


def deciding_products(model: ir.Model) -> list[Product]:
    """Return the products that decide which tokens leave: similarities, and the attention logits that scores are of."""
    deciding = deciding_nodes(model.graph)
    maps = {node for node in deciding if node.op_type == "Softmax"}
    logits = {product for softmax in maps for product in attention_logits(softmax)}
    candidates = [node for node in model.graph if node in deciding or node in logits]
    nodes = [node for node in candidates if node.op_type in PRODUCTS and _beta(node) == 1]
    return [_product(node, f"selection.{index}") for index, node in enumerate(nodes)]


def _product(node: ir.Node, label: str) -> Product:
    return Product(str(node.name), label, inputs_of(node))


def inputs_of(node: ir.Node) -> tuple[str, ...]:
    """Return the names of a product's inputs that are no weights."""
    values = [value for value in node.inputs[:2] if value is not None and not value.is_initializer()]
    return tuple(str(value.name) for value in values)


def _beta(node: ir.Node) -> float:
    """Return by what a Gemm multiplies what it adds."""
    return node.attributes["beta"].as_float() if "beta" in node.attributes else 1.0


def _is_constant_product(node: ir.Node) -> bool:
    weight = node.inputs[1] if node.op_type in PRODUCTS else None
    return weight is not None and weight.is_initializer() and weight.dtype == ir.DataType.FLOAT


def _only_decides(node: ir.Node, deciding: set[ir.Node]) -> bool:
    """Whether all that depends on a node, up to the choices, is part of deciding."""
    reached = _reached(node, lambda found: list(found.successors()), stop=_chooses)
    return bool(reached) and reached <= deciding


def _chooses(node: ir.Node) -> bool:
    return node.op_type == "TopK"


def _reached(
    node: ir.Node, following: Callable[[ir.Node], list[ir.Node]], stop: Callable[[ir.Node], bool]
) -> set[ir.Node]:
    """Return the nodes that one leads to, itself left out; those at which it stops are the last."""
    nodes: set[ir.Node] = set()
    waiting = following(node)
    while waiting:
        current = waiting.pop()
        if current not in nodes:
            nodes.add(current)
            waiting += [] if stop(current) else following(current)
    return nodes


def _labels(graph: ir.Graph, nodes: Sequence[ir.Node]) -> Iterator[str]:
    """Yield a label for each product.

    A layer begins at the first product that its attention logits come from. Its products up to the softmax are the
    queries, keys and values. All others have the names of their weights, or numbers where folding lost the name.
    """
    place = {node: index for index, node in enumerate(graph)}
    layers = _layers(graph, set(nodes), place)
    for number, node in enumerate(nodes):
        begun = [index for index, (begin, _) in enumerate(layers) if begin <= place[node]]
        if begun and place[node] < layers[begun[-1]][1]:
            yield f"blocks.{begun[-1]}.{QKV}"
        else:
            yield _weight_name(node) or f"product.{number}"


def _layers(graph: ir.Graph, products: set[ir.Node], place: dict[ir.Node, int]) -> list[tuple[int, int]]:
    """Return, for each attention, the places of its first product and of its softmax."""
    layers = []
    for node in graph:
        sources = [place[source] for logits in attention_logits(node) for source in _sources(logits, products)]
        if sources:
            layers.append((min(sources), place[node]))
    return layers


def _sources(node: ir.Node, products: set[ir.Node]) -> set[ir.Node]:
    """Return the nearest products that a node depends on."""
    return _reached(node, lambda product: list(product.predecessors()), stop=products.__contains__) & products


def _weight_name(node: ir.Node) -> str:
    weight = node.inputs[1]
    match = _WEIGHT.fullmatch(str(weight.name)) if weight is not None else None
    return match[1] if match else ""
