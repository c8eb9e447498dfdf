"""Parses a graph into a TensorRT network, and says in our words everything that the parser refuses."""

from collections.abc import Iterator
from typing import Any

import onnx

from gtp_exporters.errors import EngineError
from gtp_runtime.tensorrt_flavor import Flavor

# what to do, by operator
REMEDIES = {
    "ScatterElements": "no scatter with a reduction is taken: use a method that needs none (gtp)",
    "TopK": "its k must be constant and at most 3840: sparsity 1.0, or fewer tokens",
    "QuantizeLinear": "zero points must be 0 and types int8 or fp8: quantise symmetrically",
    "DequantizeLinear": "zero points must be 0 and types int8 or fp8: quantise symmetrically",
    "Attention": "export attention as separate products: opset 20",
}
GENERAL = "export again with gtp-export, whose static check names what TensorRT does not take"


def parse(flavor: Flavor, builder: Any, model: onnx.ModelProto, logger: Any) -> Any:
    """Return the strongly typed network of an ONNX model.

    Raises:
        EngineError: names every node that the parser refuses, and what to do.
    """
    network = builder.create_network(flavor.network_flags())
    parser = flavor.trt.OnnxParser(network, logger)
    if parser.parse(model.SerializeToString()):
        return network
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    findings = [*translate(errors, model.graph), *_unknown(parser, model.graph)]
    raise EngineError("TensorRT cannot parse the graph:\n  " + "\n  ".join(findings or [GENERAL]))


def translate(errors: list[Any], graph: onnx.GraphProto) -> Iterator[str]:
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


def _names(graph: onnx.GraphProto, operator: str) -> list[str]:
    return [repr(node.name or node.output[0]) for node in graph.node if node.op_type == operator]


def _unknown(parser: Any, graph: onnx.GraphProto) -> Iterator[str]:
    """Name the operators that the parser does not know at all, also those after its first error."""
    for operator in sorted({node.op_type for node in graph.node}):
        if not parser.supports_operator(operator):
            names = ", ".join(_names(graph, operator))
            yield f"{operator} {names}: this TensorRT does not know the operator; {REMEDIES.get(operator, GENERAL)}"
