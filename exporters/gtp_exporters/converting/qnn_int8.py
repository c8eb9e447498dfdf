"""Writes int8 for Qualcomm's NPU into a float32 graph: w8a16, int8 weights and uint16 activations, by measured ranges.

Products with weights and of attention, and what is computed of them, get quantisers with the settings that ONNX
Runtime has for this NPU. What decides which tokens leave, normalisation and what is added up between layers get none:
there the NPU computes in fp16, as in its fp16 files.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxruntime.quantization import QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.files import read, save
from gtp_exporters.graph.structure import constant_products, deciding_nodes, summing_nodes
from gtp_exporters.quantizing.calibration import Reader
from gtp_exporters.quantizing.quantizer import unshare_biases


def write_int8(graph: Path, inputs: Path) -> Path:
    """Write a float32 graph with quantisers beside it, and return the file.

    Args:
        graph: the file of it, a copy: shared biases are parted in it.
        inputs: (runs, B, 3, H, W) float32, or its like, as .npy: what ranges, smallest to largest, are measured on.
    """
    model, target = infer_shapes(read(graph)), graph.with_name(f"{graph.stem}.int8.onnx")
    quantised = quantised_nodes(model)
    unshare_biases(model, {str(node.name) for node in quantised})  # the NPU has no float node with an int32 bias
    save(model, graph)
    name = str(model.graph.inputs[0].name)
    with _silent():
        config = get_qnn_qdq_config(
            graph,
            Reader(name, np.load(inputs)),
            activation_type=QuantType.QUInt16,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=[str(node.name) for node in model.graph if node not in quantised],
        )
        quantize(graph, target, config)
    return target


def quantised_nodes(model: ir.Model) -> set[ir.Node]:
    """Return the nodes that are quantised."""
    floats = deciding_nodes(model.graph) | summing_nodes(model.graph)
    weighted = {product.node for product in constant_products(model, embedding=True)}
    quantised: set[ir.Node] = set()
    for node in model.graph:
        follows = any(source in quantised for source in node.predecessors())
        if node not in floats and (node.name in weighted or follows):
            quantised.add(node)
    return quantised


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the quantiser from showing the log messages of all libraries, as it does where no handler is."""
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    try:
        yield
    finally:
        root.removeHandler(silent)
