"""Scales for MNN's converter: int8 weights and activations of products, in its ``--compressionParamsFile``.

MNN's own quantiser (3.6.1) ends with a C++ error on every graph, so the ranges are measured here. The file is a
protobuf message of MNN's MNN_compression.proto; only the fields that are written are described.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from gtp_exporters.errors import ConversionError
from gtp_exporters.float_twin import largest_of
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.files import read
from gtp_exporters.graph.structure import constant_products
from gtp_exporters.quantizing.rounding import steps

BITS, LARGEST = 8, 127
SMALLEST = 1e-9  # a scale
AS_CONVOLUTION = "__matmul_converted"  # MNN's name of a product that it writes as a convolution ends so
_Field = descriptor_pb2.FieldDescriptorProto
_RANGE = {"name": (1, _Field.TYPE_STRING), "bits": (2, _Field.TYPE_INT32), "scales": (3, _Field.TYPE_FLOAT)}
_MESSAGES: dict[str, dict[str, tuple[int, Any]]] = {
    "Pipeline": {"version": (1, _Field.TYPE_STRING), "algo": (2, "Algo")},
    "Algo": {"type": (1, _Field.TYPE_INT32), "quant_params": (2, "Quantize")},
    "Quantize": {"round_mode": (1, _Field.TYPE_INT32), "layer": (4, "Layer")},
    "Layer": {"input": (1, "Values"), "weight": (2, "Weights"), "output": (3, "Values")},
    "Values": _RANGE | {name: (5 + i, _Field.TYPE_INT32) for i, name in enumerate(("clamp_min", "clamp_max"))},
    "Weights": _RANGE | {name: (4 + i, _Field.TYPE_INT32) for i, name in enumerate(("clamp_min", "clamp_max"))},
}
_REPEATED = ("algo", "layer", "input", "weight", "output", "scales")


def write_scales(graph: Path, inputs: Path, layers: Path, target: Path) -> None:
    """Write the scales of the products with constant weights of a graph.

    Args:
        graph: the float32 graph's file.
        inputs: (runs, B, 3, H, W) float32, or its like, as .npy: what ranges are measured on.
        layers: what MNN's converter says of its layers, as JSON.
        target: the file to write.

    Raises:
        ConversionError: MNN knows none of the products.
    """
    model = infer_shapes(read(graph))
    described = json.loads(layers.read_text("utf-8"))["algo"][0]["quantParams"]["layer"]
    found = list(_products(model, {layer["opName"] for layer in described}))
    if not found:
        raise ConversionError(f"MNN names no layer as {graph.name} does, so none can be int8")
    names = {str(value.name) for node, _ in found for value in (node.inputs[0], node.outputs[0]) if value}
    largest = largest_of(model, sorted(names), list(np.load(inputs)), 1)
    pipeline = _class("Pipeline")(version="1")
    parameters = pipeline.algo.add(type=0).quant_params
    parameters.round_mode = 1  # away from zero, MNN's default
    for node, name in found:
        source, output = node.inputs[0], node.outputs[0]
        assert source is not None
        parameters.layer.add(
            input=[_range("Values", str(source.name), [largest[str(source.name)] / LARGEST])],
            weight=[_range("Weights", name, steps(_weight(node)).ravel().tolist())],
            output=[_range("Values", name, [largest[str(output.name)] / LARGEST])],
        )
    target.write_bytes(pipeline.SerializeToString())


def _products(model: ir.Model, known: set[str]) -> Iterator[tuple[ir.Node, str]]:
    """Yield the products that MNN has as layers, and its names of them; others stay float."""
    nodes = {node.name: node for node in model.graph}
    for product in constant_products(model, embedding=True):
        node = nodes[product.node]
        output = str(node.outputs[0].name)
        name = output if output in known else output + AS_CONVOLUTION
        if name in known:
            yield node, name


def _weight(node: ir.Node) -> np.ndarray:
    """Return the weights of a product, (inputs, outputs) float32."""
    assert node.inputs[1] is not None and node.inputs[1].const_value is not None
    values = node.inputs[1].const_value.numpy()
    if node.op_type == "Conv":
        return np.asarray(values.reshape(len(values), -1).T)
    turned = "transB" in node.attributes and node.attributes["transB"].as_int()
    return np.asarray(values.T if turned else values)


def _range(kind: str, name: str, scales: list[float]) -> Any:
    scales = [max(scale, SMALLEST) for scale in scales]
    return _class(kind)(name=name, bits=BITS, scales=scales, clamp_min=-LARGEST, clamp_max=LARGEST)


@cache
def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="gtp_export/mnn.proto", package="gtp_export.mnn", syntax="proto2")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            label = _Field.LABEL_REPEATED if name in _REPEATED else _Field.LABEL_OPTIONAL
            made = described.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                made.type, made.type_name = _Field.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                made.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"{file.package}.{name}")) for name in _MESSAGES}


def _class(name: str) -> Any:
    return _classes()[name]
