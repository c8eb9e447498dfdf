"""Graphs as the exporter makes them, against eager PyTorch."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from helpers import images_for

from gtp_exporters.simplify import simplify
from gtp_exporters.static_check import check_static, infer_shapes
from gtp_exporters.tracing import Traced, to_onnx
from gtp_models.frame.patch import trace_tokens


def graph_of(model: Any, batch: int) -> onnx.ModelProto:
    """Trace, simplify and check a patched model with its trace output."""
    proto, note = simplify(to_onnx(Traced(model, True), batch, 20)[0])
    assert not note
    proto = infer_shapes(proto)
    check_static(proto, "tensorrt")
    return proto


def check_answers(proto: onnx.ModelProto, model: Any, batch: int) -> bool:
    """Compare answers and propagated tokens in ONNX Runtime; return whether the graph has the latter."""
    images = images_for(model, batch)
    with torch.inference_mode(), trace_tokens(model) as trace:
        expected = model(images).numpy()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    answers, *left = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(answers, expected, rtol=0, atol=2e-5 * abs(expected).max() + 1e-6)
    for ids in left:
        np.testing.assert_array_equal(ids, torch.cat([step.propagated for step in trace], 1).numpy())
        assert ids.dtype == np.int32
    return bool(left)
