"""Which layers of a graph in fp16 or with weights in few bits are furthest from float32, and which overflow in fp16."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from gtp_exporters.float_twin import read_twins, values_of
from gtp_exporters.graph.structure import PRODUCTS, constant_products

FP16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class LayerError:
    """The largest error of a layer's output over images, relative to its size in float32; None if it is not finite."""

    layer: str
    error: float | None

    @property
    def text(self) -> str:
        """The error for people."""
        return "not finite" if self.error is None else f"{self.error:.2g}"


def layer_errors(directory: Path, threads: int) -> list[LayerError]:
    """Compare the outputs of the layers with float32's on images of the reference, the furthest first.

    Args:
        directory: an export that is not in its place yet.
        threads: 0 for all.

    Returns:
        One entry for each layer; none for an export in float32 or bf16, which does not run here, and none without a
        dense graph: in a reduced one, near-ties that flip hide what each layer loses.
    """
    twins = read_twins(directory)
    if twins is None or twins.role != "dense":
        return []
    labels = {product.node: product.label for product in constant_products(twins.float, embedding=True)}
    outputs = {str(node.outputs[0].name): labels[node.name] for node in twins.float.graph if node.name in labels}
    runs = (values_of(model, list(outputs), twins.inputs, threads) for model in (twins.float, twins.lowered))
    found: dict[str, float] = {}
    for expected, given in zip(*runs, strict=True):
        for layer, error in zip(outputs.values(), map(_error, expected, given), strict=True):
            found[layer] = max(error, found.get(layer, 0))
    ranked = sorted(found.items(), key=lambda item: -item[1])
    return [LayerError(layer, error if np.isfinite(error) else None) for layer, error in ranked]


@np.errstate(invalid="ignore", over="ignore")
def _error(expected: np.ndarray, found: np.ndarray) -> float:
    left, right = (values.astype(np.float64).reshape(len(values), -1) for values in (expected, found))
    error = np.linalg.norm(left - right, axis=1) / np.maximum(np.linalg.norm(left, axis=1), 1e-30)
    return float(np.nan_to_num(error, nan=np.inf).max())


def overflows(directory: Path, threads: int) -> list[str]:
    """Return, for an export in fp16, the layers with products that fp16 cannot hold, with the largest value.

    Measured in float32 on images of the reference, because ONNX Runtime computes fp16 graphs in float32 on CPUs, where
    nothing overflows.

    Args:
        directory: an export that is not in its place yet.
        threads: 0 for all.
    """
    twins = read_twins(directory)
    if twins is None or twins.precision != "fp16":
        return []
    labels = _with_attention(twins.float)
    low = [node for node in twins.lowered.graph if node.name in labels and node.outputs[0].dtype == ir.DataType.FLOAT16]
    names = [str(node.outputs[0].name).removesuffix(".inner") for node in low]  # graph outputs were renamed
    runs = values_of(twins.float, names, twins.inputs, threads)
    largest = np.max([[np.abs(values).max() for values in found] for found in runs], axis=0)
    pairs = [(labels[str(node.name)], float(value)) for node, value in zip(low, largest, strict=True)]
    return [f"{label} reaches {value:.2g}" for label, value in pairs if not value <= FP16_MAX]


def _with_attention(model: ir.Model) -> dict[str, str]:
    """Return the layer of each product by its node: those of attention follow the queries, keys and values."""
    known = {product.node: product.label for product in constant_products(model, embedding=True)}
    found, last = {}, ""
    for node in (node for node in model.graph if node.op_type in PRODUCTS):
        last = known.get(str(node.name), last)
        found[str(node.name)] = last if node.name in known else last.removesuffix(".qkv")
    return found
