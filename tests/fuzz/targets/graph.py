"""ONNX files: scanned, read as the exporter does, and loaded with a manifest that fits."""

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
from graph_edits import models
from hypothesis import strategies as st
from protobufs import MESSAGES, nested

from targets.base import Target, manifest_seed, refused, write


def read_graph(content: bytes, folder: Path) -> None:
    import gtp_runtime
    from gtp_exporters.graph import files as graphs

    place = folder / "export"
    place.mkdir(exist_ok=True)
    path, values = write(place, "model.onnx", content), manifest_seed()
    values["files"]["model.onnx"] |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    write(place, "model.json", json.dumps(values).encode())
    with refused():
        graphs.read(path)
    with gtp_runtime.load(place, threads=1) as model:
        model.run(np.zeros(model.entry.inputs[0].shape, np.float32))


@cache
def graph_seeds() -> list[bytes]:
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((3072, 10), np.float32), "w")
    shape = numpy_helper.from_array(np.array([1, 3072], np.int64), "s")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "s"], ["x"]), helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "seed",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [weights, shape],
    )
    small = helper.make_graph(
        [helper.make_node("Flatten", ["images"], ["x"]), helper.make_node("Gemm", ["x", "k"], ["logits"])],
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
    )
    return [
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
        for made in (graph, small)
    ]


TARGET = Target(
    read_graph,
    graph_seeds,
    (b"location", b"../x", b"EPContext", b"\xff\xff\xff\xff\x0f", b"MatMul"),
    st.one_of(models(graph_seeds), models(graph_seeds), nested(), MESSAGES),
)
