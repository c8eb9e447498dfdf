"""Parses a graph into a TensorRT network, and explains everything that the parser rejects."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from gtp_exporters.errors import EngineError
from gtp_exporters.graph import files as graphs
from gtp_exporters.limits import MAX_TOPK
from gtp_runtime.tensorrt_flavor import Flavor

# what to do, by operator
REMEDIES = {
    "ScatterElements": "scatter with a reduction is not supported: use a method without it (gtp)",
    "TopK": f"its k must be constant and at most {MAX_TOPK}: sparsity 1.0, or fewer tokens",
    "QuantizeLinear": "zero points must be 0 and types int8 or fp8: quantise symmetrically",
    "DequantizeLinear": "zero points must be 0 and types int8 or fp8: quantise symmetrically",
    "Attention": "export attention as separate products: opset 20",
}
GENERAL = "export again with gtp-export, whose static check finds unsupported operators"


@dataclass(frozen=True)
class Parsed:
    """A network and the parser that owns its weights: both must live until the engine is built."""

    network: Any
    parser: Any


def parse(flavor: Flavor, builder: Any, model: ir.Model, logger: Any) -> Parsed:
    """Return the strongly typed network of an ONNX graph.

    Raises:
        EngineError: names every node that the parser refuses, and what to do.
    """
    network = builder.create_network(flavor.network_flags())
    parser = flavor.trt.OnnxParser(network, logger)
    if _parse(parser, model):
        return Parsed(network, parser)
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    findings = [*translate(errors, model.graph), *_unknown(parser, model.graph)]
    raise EngineError("TensorRT cannot parse the graph:\n  " + "\n  ".join(findings or [GENERAL]))


def _parse(parser: Any, model: ir.Model) -> bool:
    """Hand a graph over in memory, or as a file where protobuf cannot hold its weights."""
    if graphs.weight_bytes(model) <= graphs.EXTERNAL_ABOVE:
        return parser.parse(graphs.serialized(model))
    with graphs.on_disk(model) as path:
        return parser.parse_from_file(str(path))


def translate(errors: list[Any], graph: ir.Graph) -> Iterator[str]:
    """Yield one line a parser error: the nodes, TensorRT's words, what to do.

    The parser stops at its first error and does not always name a node; then the name of its function
    (importScatterElements) tells the operator, and all nodes of that kind are named.
    """
    for error in errors:
        operator = error.node_operator() or error.func().removeprefix("import")
        names = [error.node_name()] if error.node_name() else _names(graph, operator)
        words = " ".join(error.desc().split())
        where = f"{operator} {', '.join(names)}" if names else f"node {error.node()}"
        yield f"{where}: {words}; {REMEDIES.get(operator, GENERAL)}"


def _names(graph: ir.Graph, operator: str) -> list[str]:
    return [repr(node.name or node.outputs[0].name) for node in graph if node.op_type == operator]


def _unknown(parser: Any, graph: ir.Graph) -> Iterator[str]:
    """Name the operators that the parser does not know at all, also those after its first error."""
    for operator in sorted({node.op_type for node in graph}):
        if not parser.supports_operator(operator):
            names = ", ".join(_names(graph, operator))
            yield f"{operator} {names}: this TensorRT does not know the operator; {REMEDIES.get(operator, GENERAL)}"
