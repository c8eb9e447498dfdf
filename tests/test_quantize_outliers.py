"""int8 where some channels are much larger than others: scales move into weights, exactly, and the loss falls."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from gtp_exporters.agreement import answers
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.files import read
from gtp_exporters.graph.structure import constant_products
from gtp_exporters.measuring.gate import flip_divergence, hopeless, judge
from gtp_exporters.quantizing import job, migrating
from gtp_exporters.quantizing.migrating import Group, groups
from gtp_exporters.quantizing.options import FORMS
from gtp_exporters.quantizing.quantizer import Source, source
from gtp_exporters.quantizing.rounding import codes, steps
from gtp_exporters.quantizing.samples import collect, with_outputs
from gtp_exporters.quantizing.scales import best, unscaled, weight_rounded
from gtp_exporters.quantizing.sensitivity import losses
from gtp_runtime.accuracy import divergence
from gtp_runtime.messages import quiet
from gtp_runtime.precisions import PRECISIONS

LIMITS = PRECISIONS["int8"].gate
assert LIMITS is not None
LARGER = 64.0  # times as large as the others is a planted channel
CHANNELS = (5, 40)


def planted(path: Path) -> ir.Model:
    """Return a graph of digits that answers the same, with outlier channels after each LayerNorm and in the values."""
    model = infer_shapes(read(path))
    for group in groups(model, constant_products(model, embedding=False)):
        if group.giver is not None:
            factor = np.ones(len(group.weights[0]), np.float32)
            factor[list(CHANNELS)] = LARGER
            migrating._move(group, 1 / factor)
    return model


@contextmanager
def fitted(model: ir.Model, target: str, batches: list[np.ndarray]) -> Iterator[Source]:
    form = FORMS[target]
    products = constant_products(model, embedding=form.embedding)
    with source(model, products, target, form) as graph:
        job.fit(graph, batches, 1)
        yield graph


def digit_batches(count: int, start: int = 0) -> list[np.ndarray]:
    """Return (1, 3, 32, 32) inputs of the digits model: its own calibration images."""
    from artifacts import DIGITS
    from PIL import Image

    paths = sorted((DIGITS / "calibration").rglob("*.png"))[start : start + count]
    pixels = [np.asarray(Image.open(path).convert("RGB").resize((32, 32)), np.float32) / 127.5 - 1 for path in paths]
    return [image.transpose(2, 0, 1)[None] for image in pixels]


def loss(graph: Source, model: ir.Model, batches: list[np.ndarray]) -> float:
    """Return the mean divergence of a graph with all in int8 from a float one."""
    made, exact = graph.quantized(graph.labels), answers(model, batches)
    return float(
        np.mean(
            [divergence(b["logits"], a["logits"]) for a, b in zip(answers(made, batches), exact, strict=True)],
        )
    )


@pytest.mark.parametrize("name", ["dense.onnx", "model.onnx"])
def test_scales_move_exactly_and_the_loss_falls(digits: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration, others = digit_batches(40), digit_batches(40, 50)
    exact = planted(digits / name)
    before = answers(exact, others)
    with fitted(planted(digits / name), "onnxruntime", calibration) as graph:
        moved = loss(graph, exact, others)
        for left, right in zip(before, answers(graph.model, others), strict=True):
            assert np.abs(left["logits"] - right["logits"]).max() <= 1e-6 * np.abs(left["logits"]).max()
    monkeypatch.setattr(job, "migrate", unmoved)
    with fitted(planted(digits / name), "onnxruntime", calibration) as graph:
        left_alone = loss(graph, exact, others)
    assert moved < left_alone / 5


def unmoved(members: list[Group], samples: dict, *, symmetric: bool) -> dict:  # type: ignore[type-arg]
    return {group.value: unscaled(samples[group.value], group.weights, symmetric=symmetric) for group in members}


def test_layer_norms_and_values_give_way_and_gelu_does_not(digits: Path) -> None:
    model = infer_shapes(read(digits / "dense.onnx"))
    found = groups(model, constant_products(model, embedding=False))
    kinds = [None if group.giver is None else group.giver.op_type for group in found]
    assert kinds[:4] == ["LayerNormalization", "Gemm", "LayerNormalization", None]
    assert [len(group.nodes) for group in found[:4]] == [3, 1, 1, 1]


def test_a_node_divides_where_a_gelu_is_before_and_it_pays(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "WORTH", 0.0)
    monkeypatch.setattr(migrating, "PAYS", 1.0)
    calibration = digit_batches(20)
    exact = infer_shapes(read(digits / "dense.onnx"))
    for target in FORMS:
        with fitted(infer_shapes(read(digits / "dense.onnx")), target, calibration) as graph:
            divided = [
                node for node in graph.model.graph if node.op_type == "Mul" and str(node.name).endswith(".divide")
            ]
            assert divided
            for left, right in zip(answers(exact, calibration), answers(graph.model, calibration), strict=True):
                assert np.abs(left["logits"] - right["logits"]).max() <= 1e-6 * np.abs(left["logits"]).max()
            made = graph.quantized(graph.labels)  # checked to be static, for the target
            zeros = [
                node.inputs[2].const_value.numpy()
                for node in made.graph
                if node.op_type == "QuantizeLinear" and node.inputs[2] is not None and node.inputs[2].const_value
            ]
            assert zeros
            assert all(not zero.any() for zero in zeros) == (target == "tensorrt")


def test_weights_are_rounded_so_that_products_change_least() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((2000, 48)).astype(np.float32) @ rng.standard_normal((48, 200)).astype(np.float32)
    inputs = mixed + 0.1 * rng.standard_normal(mixed.shape).astype(np.float32)  # 200 channels of which 48 are free
    weights = [rng.standard_normal((200, width)).astype(np.float32) for width in (30, 12)]
    made = codes(weights, np.cov(inputs.T, bias=True), noise=0.0)
    for weight, chosen in zip(weights, made, strict=True):
        assert chosen.dtype == np.int8 and chosen.shape == weight.shape
        lost, nearest = chosen * steps(weight) - weight, weight_rounded(weight) - weight
        assert np.square(inputs @ lost).sum() < 0.3 * np.square(inputs @ nearest).sum()


def test_covariances_are_those_of_all_rows(digits: Path) -> None:
    model = infer_shapes(read(digits / "dense.onnx"))
    group = groups(model, constant_products(model, embedding=False))[0]
    value, width = group.value, len(group.weights[0])
    sample = collect(model, {value: width}, digit_batches(4), 1)[value]
    made = answers(with_outputs(model, [value]), digit_batches(4))
    rows = np.concatenate([answer[value].reshape(-1, width) for answer in made])
    assert np.allclose(sample.mean, rows.mean(0), atol=1e-4)
    assert np.allclose(sample.covariance, np.cov(rows.T, bias=True), atol=1e-3)


def test_the_codes_that_were_chosen_are_in_the_file(digits: Path) -> None:
    with fitted(infer_shapes(read(digits / "dense.onnx")), "onnxruntime", digit_batches(20)) as graph:
        assert set(graph.codes) == {product.node for product in graph.products}
        node = graph.products[-1].node
        graph.codes[node] = np.full_like(graph.codes[node], 3)
        made = graph.quantized(graph.labels)
        written = {
            str(node.name): node.inputs[1].producer().inputs[0] for node in made.graph if node.name in graph.codes
        }
        for name, value in written.items():
            assert (value.const_value.numpy() == graph.codes[name]).all()


def test_scales_are_powers_of_two_and_never_lose_more(digits: Path) -> None:
    model = planted(digits / "dense.onnx")
    group = groups(model, constant_products(model, embedding=False))[0]
    samples = collect(model, {group.value: len(group.weights[0])}, digit_batches(20), 1)
    for symmetric in (True, False):
        plain = unscaled(samples[group.value], group.weights, symmetric=symmetric)
        chosen = best(samples[group.value], group.weights, symmetric=symmetric)
        assert chosen.error < plain.error / 10
        assert (np.exp2(np.rint(np.log2(chosen.scales))) == chosen.scales).all()


def test_the_loss_of_a_layer_is_that_of_the_graph_with_it_alone_in_int8(digits: Path) -> None:
    calibration, probes = digit_batches(40), digit_batches(8, 60)
    exact = answers(infer_shapes(read(digits / "model.onnx")), probes)
    with fitted(infer_shapes(read(digits / "model.onnx")), "tensorrt", calibration) as graph:
        found = losses(graph, probes, quiet, 1)
        assert sorted(layer.layer for layer in found) == sorted(graph.labels)
        assert [layer.loss for layer in found] == sorted((layer.loss for layer in found), reverse=True)
        for layer in (found[0], found[len(found) // 2]):
            alone = answers(graph.quantized([layer.layer]), probes)
            true = np.mean([divergence(a["logits"], b["logits"]) for a, b in zip(exact, alone, strict=True)])
            assert layer.loss == pytest.approx(float(true), rel=0.2, abs=1e-6)


def test_near_ties_are_no_failure_and_clear_flips_are() -> None:
    rng = np.random.default_rng(0)
    weak = rng.normal(0, 0.01, (200, 10)).astype(np.float32)  # a head whose classes are all nearly equal
    shaken = weak + rng.normal(0, 0.008, weak.shape).astype(np.float32)
    report = judge("file", {"logits": shaken}, {"logits": weak}, None, "here", [], 4, replace(LIMITS, cosine=0))
    assert report.loss.agreement is not None and report.loss.agreement < 0.95
    assert report.flips == 0 and report.ok
    clear = np.zeros((200, 10), np.float32)
    clear[:, 0] = 4
    wrong = clear.copy()
    wrong[:20, 1] = 4.1
    report = judge("file", {"logits": wrong}, {"logits": clear}, None, "here", [], 4, replace(LIMITS, divergence=0.2))
    assert report.flips == pytest.approx(0.1) and not report.ok


def test_the_divergence_of_a_flip_is_the_smallest() -> None:
    logits = np.log(np.asarray([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]], np.float32))
    exact = 0.5 * np.log(0.5 / 0.4) + 0.3 * np.log(0.3 / 0.4)
    assert flip_divergence(logits) == pytest.approx([exact, 0], abs=1e-6)


def test_a_gate_that_is_sure_to_fail_is_known_early() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (64, 10)).astype(np.float32)
    assert hopeless({"logits": logits[::-1]}, {"logits": logits}, LIMITS)
    assert hopeless({"logits": np.full_like(logits, np.nan)}, {"logits": logits}, LIMITS)
    assert not hopeless({"logits": logits + 0.01}, {"logits": logits}, LIMITS)
