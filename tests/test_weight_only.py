"""Weights in 8 or 4 bits: of products alone, by ONNX Runtime's quantiser, on ONNX Runtime alone."""

import logging
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from artifacts import Command, python

from gtp_exporters import ExportOptions, LimitError, build_engine
from gtp_exporters.agreement import make_session
from gtp_exporters.errors import StaticCheckError
from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.files import read, serialized
from gtp_exporters.graph.precision import OPERATOR, precision_of, to_precision
from gtp_exporters.graph.structure import attention_logits, constant_products, deciding_nodes
from gtp_runtime import load
from gtp_runtime.manifest import read_manifest

SMALL = ("int8_weights", "int4_weights")


@pytest.fixture(scope="module")
def graphs(digits: Path) -> dict[str, ir.Model]:
    """The reduced graph of digits in fp32 and with small weights."""
    model = infer_shapes(read(digits / "model.onnx"))
    return {name: to_precision(model, name) for name in ("fp32", *SMALL)}


@pytest.mark.parametrize("precision", SMALL)
def test_products_with_weights_alone_have_small_ones(graphs: dict[str, ir.Model], precision: str) -> None:
    model = graphs[precision]
    assert precision_of(model) == precision
    constant = {product.node for product in constant_products(graphs["fp32"], embedding=False)}
    assert {node.name for node in model.graph if node.op_type == OPERATOR} == constant
    assert not any(node.op_type == OPERATOR for node in deciding_nodes(model.graph))
    assert len([product for node in model.graph for product in attention_logits(node)]) == 6
    for node in model.graph:
        assert all(value.shape is not None and value.dtype is not None for value in node.outputs if value.name)


def test_the_files_are_a_third_and_a_fifth(graphs: dict[str, ir.Model]) -> None:
    sizes = {name: len(serialized(model)) for name, model in graphs.items()}
    assert sizes["int8_weights"] < 0.36 * sizes["fp32"]
    assert sizes["int4_weights"] < 0.21 * sizes["fp32"]


@pytest.mark.parametrize(("precision", "limit"), [("int8_weights", 0.05), ("int4_weights", 0.2)])
def test_answers_stay_near(graphs: dict[str, ir.Model], precision: str, limit: float) -> None:
    images = np.random.default_rng(0).standard_normal((4, *graphs["fp32"].graph.inputs[0].shape.numpy()[1:]))
    sessions = [make_session(graphs[name]) for name in ("fp32", precision)]
    expected, found = (
        np.concatenate([session.run(["logits"], {session.get_inputs()[0].name: image[None]})[0] for image in given])
        for session in sessions
        for given in [images.astype(np.float32)]
    )
    assert np.abs(found - expected).mean() <= limit * np.abs(expected).max()


def test_they_run_on_onnxruntime_alone(graphs: dict[str, ir.Model], digits_copy: Path) -> None:
    check_static(graphs["int4_weights"], "onnxruntime")
    for target in ("tensorrt", "openvino"):
        with pytest.raises(StaticCheckError, match=r"domain 'com\.microsoft'"):
            check_static(graphs["int4_weights"], target)
        with pytest.raises(LimitError, match=f"{target} .*int4_weights, .*--target"):
            ExportOptions(precision="int4_weights", target=target)
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(LimitError, match="tensorrt .*int8_weights"):
        build_engine(digits_copy, precision="int8_weights", flavor="rtx")


def test_logging_stays_as_it_was(graphs: dict[str, ir.Model]) -> None:
    assert graphs
    code = "import logging; from gtp_exporters.graph.precision import _packer; _packer(4, 32)"
    assert python(f"{code}; print(logging.getLogger().handlers, logging.getLogger().level)").last == "[] 30"
    assert logging.NullHandler not in map(type, logging.getLogger().handlers)


@pytest.mark.full
@pytest.mark.parametrize("precision", SMALL)
def test_digits_from_end_to_end(command: Command, tmp_path: Path, precision: str) -> None:
    place = tmp_path / "digits"
    ran = command("export", "digits", "--precision", precision, "--target", "onnxruntime", "-o", place, "--no-report")
    assert ran.code == 0, ran.err
    assert "parity ok on 360 images" in ran.out
    entries = read_manifest(place).files
    assert {entries[name].precision for name in ("model.onnx", "dense.onnx")} == {precision}
    with load(place, precision=precision) as model:
        assert model.validate().ok
