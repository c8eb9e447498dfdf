"""validate, bench and predict refuse what would mislead: answers, numbers, folders and kept sets that mean nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from artifacts import DIGITS, ONE_OF_EACH, SEVEN, Command
from onnx import numpy_helper
from test_reference_check import with_pack

import gtp_runtime
from gtp_runtime import read_manifest
from gtp_runtime.errors import AnswerError
from gtp_runtime.manifest import file_sha256, write_manifest
from gtp_runtime.parity import NO_TRACE
from gtp_runtime.reference import Reference


def with_graph(directory: Path, name: str, change: "dict[str, float]") -> Path:
    """Fill the tensors of these names with a value, with a hash that fits."""
    path = directory / name
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        for part, value in change.items():
            if tensor.name.endswith(part):
                values = np.full(tuple(tensor.dims), value, np.float32)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, path)
    return rehashed(directory, name)


def rehashed(directory: Path, name: str) -> Path:
    manifest = read_manifest(directory)
    entry = replace(manifest.entry(name), sha256=file_sha256(directory / name), size=(directory / name).stat().st_size)
    write_manifest(replace(manifest, files=manifest.files | {name: entry}), directory)
    return directory


@pytest.fixture
def few(digits_copy: Path) -> Path:
    """The digits export with 12 images in its parity pack."""

    def first(pack: Reference) -> Reference:
        layers = {name: [values[::30] for values in getattr(pack, name)] for name in ("kept", "propagated", "gap")}
        arrays = {name: getattr(pack, name)[::30] for name in ("images", "labels")}
        for name in ("outputs", "dense_outputs"):
            arrays[name] = {output: values[::30] for output, values in getattr(pack, name).items()}
        return replace(pack, **arrays, **layers)

    return with_pack(digits_copy, first)


@pytest.fixture
def broken(few: Path) -> Path:
    return with_graph(few, "model.onnx", {"head.bias": float("nan")})


def test_predictions_that_are_not_finite_are_an_error(command: Command, broken: Path) -> None:
    for arguments in ([], ["--json"]):
        ran = command("predict", broken, SEVEN, *arguments)
        assert (ran.code, ran.out) == (1, "")
        assert f"model.onnx has non-finite outputs for 1 of 1 images, first {SEVEN}" in ran.error
    with gtp_runtime.load(broken) as model:
        with pytest.raises(AnswerError, match=r"2 of 2 images.*NaN"):
            model.predict([np.zeros((32, 32, 3), np.uint8)] * 2)
        with pytest.raises(AnswerError, match="non-finite"):
            gtp_runtime.evaluate(model, None, DIGITS / "images" / "3")


def test_answers_that_are_not_finite_fail_parity(command: Command, broken: Path) -> None:
    ran = command("validate", broken, "--json")
    assert ran.code == 3
    found = json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (found["ok"], found["problems"][0]) == (False, "some logits are not finite")


@pytest.mark.parametrize(("name", "values"), [("std", [0.5, 0.5, 0.0]), ("mean", [0.5, 0.5, 1e39])])
def test_a_preprocessing_without_meaning_is_an_error(
    command: Command, digits_copy: Path, name: str, values: list[float]
) -> None:
    path = digits_copy / "model.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["preprocessing"][name] = values
    path.write_text(json.dumps(manifest), "utf-8")
    for arguments in (("predict", digits_copy, SEVEN), ("validate", digits_copy)):
        ran = command(*arguments)
        assert (ran.code, ran.out) == (1, "")
        assert f"preprocessing.{name} is [0.5, 0.5, " in ran.error


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "-inf"])
def test_bench_refuses_seconds_that_are_none(command: Command, digits: Path, value: str) -> None:
    ran = command("bench", digits, "--seconds", value)
    assert ran.code == 2
    assert "'--seconds'" in ran.error


@pytest.mark.parametrize("value", ["nan", "0", "-1", "inf"])
def test_bench_refuses_a_budget_that_is_none(command: Command, digits: Path, value: str) -> None:
    ran = command("bench", digits, "--seconds", "0", "--budget-ms", value)
    assert ran.code == 2
    assert "'--budget-ms'" in ran.error


@pytest.mark.parametrize(
    ("option", "value"), [("--min-kept", "nan"), ("--min-kept", "1.1"), ("--min-kept", "-0.1"), ("--max-drop", "nan")]
)
def test_validate_refuses_limits_that_are_none(command: Command, digits: Path, option: str, value: str) -> None:
    ran = command("validate", digits, "--data", DIGITS / "images", option, value)
    assert ran.code == 2
    assert f"'{option}'" in ran.error


def test_min_kept(command: Command, few: Path) -> None:
    def half_altered(pack: Reference) -> Reference:
        ids = pack.propagated[0].copy()
        ids[: len(ids) // 2, 0] = pack.kept[-1][: len(ids) // 2, 0]
        return replace(pack, propagated=[ids, *pack.propagated[1:]])

    with_pack(few, half_altered)
    ran = command("validate", few)
    assert ran.code == 3
    assert "kept sets agree on 50.0%, token overlap 0.9" in ran.out
    assert "gate: kept sets agree on 50.0% of the images, limit 75%" in ran.out
    assert command("validate", few, "--min-kept", "0.5").code == 0
    assert json.loads(command("validate", few, "--min-kept", "0.4", "--json").out)["min_kept"] == 0.4
    ran = command("validate", few / "dense.onnx", "--min-kept", "0.5")
    assert ran.code == 3
    assert "(--min-kept)" in ran.out


def test_a_missing_trace_is_said(command: Command, few: Path) -> None:
    path = few / "model.onnx"
    proto = onnx.load(path)
    del proto.graph.output[1]
    onnx.save(proto, path)
    rehashed(few, "model.onnx")
    manifest = read_manifest(few)
    entry = replace(manifest.entry(path.name), outputs=manifest.entry(path.name).outputs[:1])
    write_manifest(replace(manifest, files=manifest.files | {path.name: entry}), few)
    ran = command("validate", few)
    assert ran.code == 0
    assert f"note: {NO_TRACE}" in ran.out
    assert "kept sets agree" not in ran.out
    found = json.loads(command("validate", few, "--json").out)
    assert (found["kept_agreement"], found["notes"]) == (None, [NO_TRACE])


def test_class_order(command: Command, few: Path, tmp_path: Path) -> None:
    for digit, image in enumerate(ONE_OF_EACH):
        (tmp_path / "data" / "abcdefghij"[digit]).mkdir(parents=True)
        shutil.copy(image, tmp_path / "data" / "abcdefghij"[digit])
    ran = command("validate", few, "--data", tmp_path / "data")
    assert ran.code == 1
    assert "not classes" in ran.error and "--class-order" in ran.error
    ran = command("validate", few, "--data", tmp_path / "data", "--class-order", "timm")
    assert ran.code == 0
    assert "a = 0, b = 1, c = 2" in ran.out
    assert "top-1 is 0.00% ± 0.00 below dense, paired on the same images" in ran.out
    assert "agrees with dense on 100.00% of the images; mean divergence from dense " in ran.out
    found = json.loads(command("validate", few, "--data", tmp_path / "data", "--class-order", "timm", "--json").out)
    assert found["accuracy"]["class_folders"]["j"] == 9
    assert "--data DIR" in command("validate", few, "--class-order", "timm").error


@pytest.mark.parametrize("name", ["validate", "bench", "predict"])
def test_help_is_in_plain_words(command: Command, name: str) -> None:
    text = " ".join(command(name, "--help").out.split())
    assert not [phrase for phrase in (" without.", "hand over", "price", "aside") if phrase in text]
