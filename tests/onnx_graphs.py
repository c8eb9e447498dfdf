"""Graphs as the exporter makes them, against eager PyTorch."""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from helpers import images_for, tiny_vit

from gtp_exporters.agreement import make_session
from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.rules import simplify
from gtp_exporters.graph.trace import Traced, to_onnx
from gtp_models.frame.patch import trace_tokens
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig


def graph_of(model: Any, batch: int) -> ir.Model:
    """Trace, simplify and check a patched model with its trace output."""
    graph, note = simplify(to_onnx(Traced(model, True), batch, 20)[0])
    assert not note
    graph = infer_shapes(graph)
    check_static(graph, "tensorrt")
    return graph


def tiny_graph() -> ir.Model:
    """Return the graph of a small model as it is traced."""
    return to_onnx(Traced(apply(tiny_vit(), GTPConfig(num_prop=2, num_neighbours=4)), True), 1, 20)[0]


def operators(graph: ir.Model) -> set[str]:
    return {node.op_type for node in graph.graph}


def check_answers(graph: ir.Model, model: Any, batch: int) -> bool:
    """Compare answers, propagated tokens and receivers in ONNX Runtime; return whether the graph traces them."""
    images = images_for(model, batch)
    with torch.inference_mode(), trace_tokens(model) as trace:
        expected = model(images).numpy()
    answers, *traced = make_session(graph).run(None, {"images": images.numpy()})
    np.testing.assert_allclose(answers, expected, rtol=0, atol=2e-5 * abs(expected).max() + 1e-6)
    receivers = [step.received_by for step in trace if step.received_by is not None]
    known = [[step.propagated for step in trace], *([receivers] if receivers else [])]
    for ids, steps in zip(traced, known, strict=False):
        np.testing.assert_array_equal(ids, torch.cat(steps, 1).numpy())
        assert ids.dtype == np.int32
    assert len(traced) in (0, len(known))
    return bool(traced)
