"""A program that writes a .pte file of a graph, for ExecuTorch with XNNPACK: what it prints stays out of ours.

    python -m gtp_exporters.converting.executorch_file GRAPH.onnx TARGET.pte [INPUTS.npy]

With inputs, (runs, batch, ...), products with weights are int8, by ranges measured on them.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gtp_exporters.converting.torch_graph import TorchGraph, example, read_graph


def write(graph: Path, target: Path, inputs: Path | None = None) -> None:
    """Write a file; products with weights stay whole, for which XNNPACK has kernels."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    model = read_graph(graph)
    module, images = TorchGraph(model).eval(), example(model)
    program: Any = torch.export.export(module if inputs is None else _int8(module, images, inputs), (images,))
    made = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    with target.open("wb") as file:
        made.write_to_file(file)


def _int8(module: nn.Module, images: Tensor, inputs: Path) -> nn.Module:
    """Return a module whose products with weights have both factors quantised: weights a scale for each channel."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    ranges = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
    quantizer = xnnpack_quantizer.XNNPACKQuantizer().set_operator_type(torch.ops.aten.linear.default, ranges)
    measured = prepare_pt2e(torch.export.export(module, (images,)).module(), quantizer)
    with torch.no_grad():
        for values in np.load(inputs):
            measured(torch.from_numpy(values))
    return convert_pt2e(measured)


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:]))
