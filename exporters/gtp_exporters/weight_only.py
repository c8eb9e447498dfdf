"""Weights in 8 or 4 bits, in blocks with scales of their own; all else stays float32.

ONNX has no such product, so these graphs use ONNX Runtime's own (``com.microsoft.MatMulNBits``) and run there alone.
Its quantiser packs the weights. The kernel quantises activations as it runs, in the same blocks (accuracy level 4), so
no images are needed to calibrate on.
"""

import logging
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir

from gtp_exporters.graphs import without_unused
from gtp_exporters.quantizing.products import constant_products
from gtp_exporters.static_check import infer_shapes

DOMAIN, OPERATOR = "com.microsoft", "MatMulNBits"
INT8_ACTIVATIONS = 4  # ONNX Runtime's accuracy level


def with_small_weights(model: ir.Model, bits: int, block: int) -> ir.Model:
    """Return a copy of a float32 graph whose products with constant weights have these in few bits.

    Args:
        model: with inferred shapes.
        bits: 4 or 8.
        block: how many weights of a channel share a scale and a zero point; a power of 2, 16 or more.
    """
    copy = model.clone()
    names = {product.node for product in constant_products(copy, embedding=False)}
    for node in [node for node in copy.graph if node.name in names and _is_plain(node)]:
        _replace(copy.graph, node, bits, block)
    copy.opset_imports[DOMAIN] = 1
    return infer_shapes(without_unused(copy))


def has_small_weights(model: ir.Model, bits: int) -> bool:
    """Whether a graph has weights in so many bits."""
    return any(node.op_type == OPERATOR and node.attributes["bits"].as_int() == bits for node in model.graph)


def _is_plain(node: ir.Node) -> bool:
    """Whether a product is ``input @ weight + bias``, and nothing scaled or turned but the weight."""
    numbers = {name: node.attributes[name].value for name in ("alpha", "beta", "transA") if name in node.attributes}
    weight = node.inputs[1]
    plain = numbers.get("alpha", 1) == 1 and numbers.get("beta", 1) == 1 and not numbers.get("transA", 0)
    return plain and weight is not None and weight.shape is not None and len(weight.shape) == 2


def _replace(graph: ir.Graph, node: ir.Node, bits: int, block: int) -> None:
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    turned = "transB" in node.attributes and node.attributes["transB"].as_int()
    values = weight.const_value.numpy()
    values = np.ascontiguousarray(values.T if turned else values)
    rows, channels = values.shape
    packed = [_constant(graph, f"{node.name}.{name}", array) for name, array in _packed(values, bits, block).items()]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    attributes = {"K": rows, "N": channels, "bits": bits, "block_size": block, "accuracy_level": INT8_ACTIVATIONS}
    output = node.outputs[0]
    made = ir.Value(name=output.name, shape=output.shape, type=output.type)
    output.name = None
    product = ir.node(
        OPERATOR, [node.inputs[0], *packed, None, bias], attributes, domain=DOMAIN, outputs=[made], name=node.name
    )
    graph.insert_before(node, product)
    ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _packed(values: np.ndarray, bits: int, block: int) -> dict[str, np.ndarray]:
    """Return (K, N) float32 weights as ONNX Runtime packs them: "weight", "scales", "zero_points"."""
    made = _packer(bits, block).qbits_block_quant(values)
    return dict(zip(("weight", "scales", "zero_points"), made, strict=True))


@cache
def _packer(bits: int, block: int) -> Any:
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)  # the module would show the log messages of all libraries where no handler is
    try:
        from onnxruntime.quantization import matmul_nbits_quantizer as tool
    finally:
        root.removeHandler(silent)
    return tool.DefaultWeightOnlyQuantizer(
        tool.DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=False, bits=bits)
    )


def _constant(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    tensor = ir.tensor(values, name=name)
    made = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(made)
    return made
