"""ONNX models in which a few things are not true: sizes, kinds, places, operators, versions."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

SIZES = st.lists(st.sampled_from([0, 1, 3, 10, 32, 3072, -1, 10**9, 1 << 40, (1 << 63) - 1]), max_size=5)
LOCATIONS = st.sampled_from(["../x", "/dev/zero", "model.json", "", "*/_ORT_MEM_ADDR_/*", "x" * 5000])
OPERATORS = st.sampled_from(["EPContext", "If", "Loop", "Scan", "Gelu", "TopK", "Transpose", "Cast", "Split", "", "x"])


def edit_tensor(draw: Any, proto: Any) -> None:
    """Let a tensor say another shape, kind or place than it has."""
    tensor = draw(st.sampled_from(list(proto.graph.initializer) or [proto.graph.initializer.add(name="k")]))
    what = draw(st.integers(0, 4))
    if what == 0:
        tensor.dims[:] = draw(SIZES)
    elif what == 1:
        tensor.data_type = draw(st.integers(0, 30))
    elif what == 2:
        tensor.raw_data = tensor.raw_data[: draw(st.sampled_from([0, 1, 7, -1]))]
    elif what == 3:
        tensor.float_data.extend([1.0] * draw(st.integers(0, 3)))
    else:
        tensor.data_location = draw(st.integers(0, 1))
        for key in draw(st.lists(st.sampled_from(["location", "offset", "length", "checksum"]), max_size=3)):
            tensor.external_data.add(key=key, value=draw(LOCATIONS | st.sampled_from(["-1", str(1 << 62)])))


def edit_node(draw: Any, proto: Any) -> None:
    """Change what a node does, or what it takes; a graph may hold itself."""
    node = draw(st.sampled_from(list(proto.graph.node)))
    what = draw(st.integers(0, 3))
    if what == 0:
        node.op_type = draw(OPERATORS)
    elif what == 1:
        node.domain = draw(st.sampled_from(["", "com.microsoft", "d"]))
    elif what == 2:
        names = ["images", "logits", "x", "w", "none", ""]
        node.input[:] = draw(st.lists(st.sampled_from(names), max_size=3))
        node.output[:] = draw(st.lists(st.sampled_from(names), max_size=2))
    else:
        added = node.attribute.add(name=draw(st.sampled_from(["then_branch", "body", "axis", "value", "alpha"])))
        added.type = draw(st.integers(0, 14))
        added.g.ParseFromString(proto.graph.SerializeToString())  # a message cannot be copied into itself
        added.ints.extend(draw(SIZES))


def edit_frame(draw: Any, proto: Any) -> None:
    """Change versions, the tensors that go in and out, and what is there beside the graph."""
    what = draw(st.integers(0, 4))
    if what == 0:
        proto.ir_version = draw(st.sampled_from([0, 1, 3, 14, -1, 1 << 40]))
    elif what == 1:
        proto.opset_import[0].version = draw(st.sampled_from([0, 1, 7, 99, -1]))
    elif what == 2:
        tensor = draw(st.sampled_from([*proto.graph.input, *proto.graph.output])).type.tensor_type
        tensor.elem_type = draw(st.integers(0, 24))
        del tensor.shape.dim[:]
        for size in draw(SIZES):
            tensor.shape.dim.add(dim_value=size)
    elif what == 3:
        function = proto.functions.add(name="x", domain="d", input=["a"], output=["b"])
        function.node.add(op_type="x", domain="d", input=["a"], output=["b"])
        proto.opset_import.add(domain="d", version=1)
    else:
        proto.graph.sparse_initializer.add().dims.extend(draw(SIZES))


@st.composite
def models(draw: Any, seeds: Callable[[], list[bytes]]) -> bytes:
    """One of the whole models in which a few things are not true any more."""
    from onnx import ModelProto

    proto = ModelProto.FromString(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(1, 4))):
        draw(st.sampled_from([edit_tensor, edit_node, edit_frame]))(draw, proto)
    return bytes(proto.SerializeToString())
