"""Which layer of the model a node of its graph belongs to."""

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir


def nodes_per_layer(model: ir.Model, layers: Mapping[str, int | None], depth: int) -> list[int]:
    """Count the nodes of each of ``depth`` layers.

    A node whose output no module made (the recomposed attention, the propagation) belongs to the layer that
    the graph is in.

    Args:
        model: a graph in the order in which it was traced, simplified or not.
        layers: what ``to_onnx`` returned.
        depth: number of layers.
    """
    counts: Counter[int | None] = Counter()
    current: int | None = None
    for node in model.graph:
        known = [layers[value.name] for value in node.outputs if value.name and value.name in layers]
        current = known[0] if known else current
        counts[current] += 1
    return [counts[layer] for layer in range(depth)]
