"""Writes a precision into a float32 graph: one of the forms of ``gtp_runtime.precisions``.

Float types, by casts: TensorRT builds strongly typed networks, so the precision must be written into the graph. The
converters at hand (ONNX Runtime's, onnxconverter-common's) know no bf16, and they round every value between two nodes
that stay fp32, which would rank tokens by rounded scores. This one needs onnx and onnx_ir alone, so it runs on the
device as well. What decides which tokens leave stays fp32: the token graph, the token scales, and in layers that reduce
tokens the softmax and the statistics of its map. So do normalisation, the sizes of tokens, and what is added up between
the layers and merged by size: there values grow, and fp16 ends at 65,504. Inputs and outputs stay float32.

Small weights, in 8 or 4 bits: ONNX has no such product, so these graphs use ONNX Runtime's own
(``com.microsoft.MatMulNBits``) and run there alone. Its quantiser packs the weights. The kernel quantises activations
as it runs, in the same blocks (accuracy level 4), so no images are needed to calibrate on.

int8 has ranges that are measured on images: ``gtp_exporters.quantizing`` makes it.
"""

import logging
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from gtp_exporters.errors import LimitError
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.files import without_unused
from gtp_exporters.graph.structure import constant_products, deciding_nodes, summing_nodes
from gtp_exporters.options import check_precision
from gtp_runtime.precisions import PRECISIONS, Floats, Ranges, SmallWeights

FLOAT = ir.DataType.FLOAT
DOMAIN, OPERATOR = "com.microsoft", "MatMulNBits"
INT8_ACTIVATIONS = 4  # ONNX Runtime's accuracy level


def to_precision(model: ir.Model, precision: str) -> ir.Model:
    """Return a copy of a float32 graph in another precision, with inferred shapes.

    Args:
        model: static, with inferred shapes, weights as initializers.
        precision: a name of ``PRECISIONS``; "fp32" is a copy as it is.

    Raises:
        LimitError: an unknown precision, one that is calibrated, a graph that is not float32, or weights that the
            precision cannot hold.
    """
    form, present = check_precision(precision).form, precision_of(model)
    if present != "fp32":
        raise LimitError(f"the graph is {present} and cannot be converted to {precision}: use an fp32 export")
    if isinstance(form, Ranges):
        raise LimitError(
            f"{precision} is not made from a graph alone: gtp-export quantize DIR measures ranges on images"
        )
    if isinstance(form, SmallWeights):
        return with_small_weights(model, form.bits, form.block)
    kind = ir.DataType[form.kind]
    return model.clone() if kind == FLOAT else lower(model, kind)


def precision_of(model: ir.Model) -> str:
    """Return the precision that a graph is written in, by its weights and operators."""
    kinds = {value.dtype.name for value in model.graph.initializers.values() if value.dtype is not None}
    bits = {node.attributes["bits"].as_int() for node in model.graph if node.op_type == OPERATOR}
    lower = (name for name in PRECISIONS if name != "fp32")
    return next((name for name in lower if _matches(PRECISIONS[name].form, kinds, bits)), "fp32")


def _matches(form: Floats | SmallWeights | Ranges, kinds: set[str], bits: set[int]) -> bool:
    return form.bits in bits if isinstance(form, SmallWeights) else form.kind in kinds


def lower(model: ir.Model, low: ir.DataType) -> ir.Model:
    """Return a copy of a float32 graph in which all that may be is ``low``, with inferred shapes.

    Raises:
        LimitError: weights that ``low`` cannot hold.
    """
    copy = model.clone()
    _Lowering(copy.graph, low, copy.opset_imports[""]).run()
    return infer_shapes(without_unused(copy))


def takes(op_type: str, opset: int, kind: ir.DataType) -> bool:
    """Whether ONNX lets an operator work on a float type (Conv takes bf16 from opset 22 on)."""
    return f"tensor({kind.name.lower()})" in onnx.defs.get_schema(op_type, opset).inputs[0].types


@dataclass
class _Lowering:
    """One pass over the nodes in order; a value is cast once for each type in which it is used."""

    graph: ir.Graph
    low: ir.DataType
    opset: int
    made: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)  # casts, and weights

    def run(self) -> None:
        kept = deciding_nodes(self.graph) | summing_nodes(self.graph)
        for node in list(self.graph):
            low = node not in kept and takes(node.op_type, self.opset, self.low)
            self._convert(node, self.low if low else FLOAT)
        for index, output in enumerate(self.graph.outputs):
            if output.dtype == self.low:
                self.graph.outputs[index] = self._float_output(output)

    def _convert(self, node: ir.Node, kind: ir.DataType) -> None:
        for position, value in enumerate(node.inputs):
            if value is not None and value.dtype in (FLOAT, self.low) and value.dtype != kind:
                node.replace_input_with(position, self._as(value, kind, node))
        if node.op_type == "Cast" and node.attributes["to"].as_int() == FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", kind)
        for value in node.outputs:
            if value.dtype == FLOAT:
                value.type = ir.TensorType(kind)  # a copy shares its types with the graph it was made from

    def _as(self, value: ir.Value, kind: ir.DataType, user: ir.Node) -> ir.Value:
        if (value, kind) not in self.made:
            weight = value.is_initializer()
            self.made[value, kind] = self._weight(value, kind) if weight else self._cast(value, kind, user)
        return self.made[value, kind]

    def _weight(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        assert value.const_value is not None
        name = f"{value.name}.low"
        tensor = _cast_tensor(value.const_value, name, kind)
        cast = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind), const_value=tensor)
        self.graph.register_initializer(cast)
        return cast

    def _cast(self, value: ir.Value, kind: ir.DataType, user: ir.Node) -> ir.Value:
        name = f"{value.name}.{'float' if kind == FLOAT else 'low'}"
        made = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind))
        cast = ir.node("Cast", [value], {"to": kind}, outputs=[made], name=f"cast_{name}")
        self.graph.insert_before(user, cast)
        return made

    def _float_output(self, value: ir.Value) -> ir.Value:
        """Return a float32 value of the same name; the value itself gets another name."""
        cast = ir.Value(name=value.name, shape=value.shape, type=ir.TensorType(FLOAT))
        value.name = f"{value.name}.inner"
        self.graph.append(ir.node("Cast", [value], {"to": FLOAT}, outputs=[cast], name=f"cast_{value.name}"))
        return cast


def _cast_tensor(tensor: ir.TensorProtocol, name: str, kind: ir.DataType) -> ir.TensorProtocol:
    values = tensor.numpy()
    largest = float(np.abs(values).max(initial=0)) if kind == ir.DataType.FLOAT16 else 0.0
    if largest > float(np.finfo(np.float16).max):
        raise LimitError(f"{name.removesuffix('.low')} holds {largest:.3g}, more than fp16 can: use bf16")
    return ir.tensor(values.astype(kind.numpy()), kind, name=name)


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
    packed = _packer(bits, block).qbits_block_quant(values)
    return dict(zip(("weight", "scales", "zero_points"), packed, strict=True))


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
