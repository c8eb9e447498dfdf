"""An export for a range of batches: its files, what runs them, and what refuses them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from artifacts import TINY, Command
from test_cli import document
from test_export_forms import MEASURED

import gtp_runtime
from gtp_exporters import ExportOptions, convert, export, quantize
from gtp_exporters.errors import LimitError
from gtp_exporters.quantizing.options import QuantizeOptions
from gtp_exporters.tensorrt.building import EngineOptions
from gtp_exporters.web import write_site
from gtp_models import GTPConfig
from gtp_runtime import Model, read_manifest
from gtp_runtime.batches import proving_runs, runs, worst_answers
from gtp_runtime.errors import InputError, ManifestError
from gtp_runtime.manifest import BatchRange, TensorSpec, parse_manifest, write_manifest

RANGE = BatchRange(1, 5)
SETTINGS = GTPConfig(**{"num_prop": 3, **MEASURED})
pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")


def exported(place: Path, batch: Any, **options: Any) -> Path:
    given = ExportOptions(batch=batch, **options)
    return export(TINY, place, settings=SETTINGS, weights="random", options=given, report=False).directory


@pytest.fixture(scope="module")
def ranged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("ranged") / "tiny", RANGE)


@pytest.fixture
def loaded(ranged: Path) -> Iterator[Model]:
    with gtp_runtime.load(ranged, threads=1) as model:
        yield model


def noise(images: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((images, 3, 16, 16)).astype(np.float32)


def check_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        if values.dtype == np.int32:
            np.testing.assert_array_equal(ours[name], values)
        else:
            np.testing.assert_allclose(ours[name], values, rtol=0, atol=2e-5 * np.abs(values).max())


def test_the_first_axis_alone_is_free(ranged: Path) -> None:
    for name in ("model.onnx", "dense.onnx"):
        graph = onnx.load(ranged / name).graph
        for value in (*graph.input, *graph.output):
            first, *rest = value.type.tensor_type.shape.dim
            assert first.dim_param == "batch" and all(size.dim_value for size in rest)
    entry = read_manifest(ranged).entry("model.onnx")
    assert entry.batch == entry.batches == RANGE
    assert entry.inputs == [TensorSpec("images", [5, 3, 16, 16], "float32")]
    assert read_manifest(ranged).measured("parity")["model.onnx"]["ok"]


def test_any_number_of_images(loaded: Model) -> None:
    assert loaded.batches == RANGE and loaded.batch == 1
    every = loaded.run_all(noise(13))
    for count in (1, 3, 5):
        check_same(loaded.outputs(noise(13)[:count]), {name: values[:count] for name, values in every.items()})
    for count in (0, 6):
        with pytest.raises(InputError, match=r"1\.\.5"):
            loaded.run(noise(count))
    with pytest.raises(InputError, match=r"1\.\.5"):
        loaded.run(noise(3)[:, :, :8])


def test_one_image_and_many_are_predicted_alike(loaded: Model) -> None:
    images = list(np.random.default_rng(1).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8))
    several = loaded.predict(images, allow_random=True)
    for image, answer in zip(images, several, strict=True):
        (alone,) = loaded.predict([image], allow_random=True)
        assert [entry.label for entry in alone] == [entry.label for entry in answer]
    assert [found for _, found in loaded.predict_each(images, allow_random=True)] == several


def test_openvino_runs_it(ranged: Path, loaded: Model) -> None:
    pytest.importorskip("openvino")
    for name in ("model.onnx", "dense.onnx"):
        with gtp_runtime.load(ranged / name, "openvino", threads=1) as other:
            assert other.validate().ok
    with gtp_runtime.load(ranged, "openvino", threads=1) as other:
        for count in (1, 2, 5, 8):
            check_same(other.run_all(noise(count)), loaded.run_all(noise(count)))


@pytest.mark.full
@pytest.mark.parametrize("options", [{}, {"input": "uint8"}, {"form": "ranks"}, {"output": "features"}], ids=str)
def test_it_answers_as_static_exports(tmp_path: Path, options: dict[str, Any]) -> None:
    free = gtp_runtime.load(exported(tmp_path / "free", RANGE, **options), threads=1)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    for batch in (1, 2, 5):
        fixed = gtp_runtime.load(exported(tmp_path / f"fixed{batch}", batch, **options), threads=1)
        images = fixed.prepare(pixels[:batch])
        check_same(free.outputs(images), fixed.outputs(images))


@pytest.mark.full
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_lower_precisions_are_proven(tmp_path: Path, precision: str) -> None:
    directory = exported(tmp_path / "tiny", RANGE, precision=precision, target="tensorrt")
    assert read_manifest(directory).measured("parity")["model.onnx"]["ok"]


@pytest.mark.full
@pytest.mark.parametrize("output", ["map", "patches"])
def test_outputs_of_every_patch(tmp_path: Path, output: str) -> None:
    with gtp_runtime.load(exported(tmp_path / "tiny", RANGE, output=output), threads=1) as model:
        assert model.validate().ok
        assert len(model.features(list(np.zeros((3, 16, 16, 3), np.uint8)), allow_random=True)[output]) == 3


def test_the_commands_say_the_range(ranged: Path, command: Command) -> None:
    shown = command("inspect", ranged)
    assert "batch 1..5" in shown.out
    assert document(command("validate", ranged, "--json"))["ok"]
    ran = document(command("bench", ranged, "--seconds", "0", "--no-footprint", "--json", "-b", "4"))
    assert [file["batch"] for file in ran["files"]] == [4, 4]
    ran = document(command("bench", ranged, "--seconds", "0", "--no-footprint", "--json"))
    assert [file["batch"] for file in ran["files"]] == [1, 1]
    failed = command("bench", ranged, "--seconds", "0", "--no-footprint", "-b", "6")
    assert failed.code == 2 and "1..5" in failed.error


@pytest.mark.parametrize("batch", ["16..1", "0..4", "1..", "..4", "1..2..3", "a..b", "0", "-3", "1.5"])
def test_batches_that_are_none(command: Command, batch: str) -> None:
    failed = command("export", "digits", f"--batch={batch}")
    assert failed.code == 2 and "1..16" in failed.error


def test_what_needs_one_number_of_images_is_refused(ranged: Path, tmp_path: Path) -> None:
    for options in ({"target": "webnn"}, {"precision": "int8"}, {"latency": 0.8}):
        with pytest.raises(LimitError, match="--batch 1"):
            ExportOptions(batch=RANGE, **options)
    with pytest.raises(LimitError, match="--batch 4"):
        ExportOptions(batch=BatchRange(4, 4))
    with pytest.raises(LimitError, match=r"1\.\.5.*--batch"):
        quantize(ranged, QuantizeOptions("onnxruntime"))
    for to in ("litert", "executorch", "coreml", "mnn"):
        with pytest.raises(LimitError, match=r"1\.\.5.*--batch"):
            convert(ranged, to, check=False)
    with pytest.raises(LimitError, match=r"1\.\.5.*--batch"):
        write_site(ranged, tmp_path / "site")


def test_an_engine_is_best_at_a_batch_in_the_range(ranged: Path) -> None:
    from gtp_exporters.tensorrt.building import check_batch

    check_batch(RANGE, EngineOptions(opt_batch=3).opt_batch)
    for batch, best in ((RANGE, 6), (None, 2)):
        with pytest.raises(LimitError, match="opt_batch"):
            check_batch(batch, best)


def test_an_engine_has_a_profile_of_the_range(ranged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real TensorRT-RTX builds it; what it is told of the range is looked at on the way."""
    trt = pytest.importorskip("tensorrt_rtx")
    from gtp_exporters import build_engine
    from gtp_exporters.tensorrt import building

    told, add = list[Any](), building._add_profile
    monkeypatch.setattr(building, "_add_profile", lambda *given: told.append(given[3:]) or add(*given))
    for name in ("model.onnx", "dense.onnx"):
        (tmp_path / name).write_bytes((ranged / name).read_bytes())
    write_manifest(read_manifest(ranged), tmp_path)
    for precision in ("fp32", "fp16"):
        options = EngineOptions(targets=("sm86",), opt_batch=2)
        engine = build_engine(tmp_path, precision=precision, flavor="rtx", options=options)
        assert engine.entry.batch == RANGE and engine.entry.engine is not None
        assert engine.entry.engine.options["opt_batch"] == 2
    assert told == [(RANGE, 2)] * 2 and trt is not None


def test_a_manifest_keeps_the_range_and_refuses_contradictions(ranged: Path) -> None:
    path = ranged / "model.json"
    values = json.loads(path.read_text("utf-8"))
    assert values["files"]["model.onnx"]["batch"] == {"min": 1, "max": 5}
    for batch in ({"min": 3, "max": 2}, {"min": 0, "max": 5}, {"min": 1, "max": 4}, {"min": 1}, 5):
        values["files"]["model.onnx"]["batch"] = batch
        with pytest.raises(ManifestError, match="batch"):
            parse_manifest(json.dumps(values).encode(), path)


def test_a_graph_of_fixed_shape_is_no_range(ranged: Path, tmp_path: Path) -> None:
    manifest = read_manifest(ranged)
    content = (ranged / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(content)
    entry = replace(manifest.entry("model.onnx"), batch=None)
    write_manifest(replace(manifest, files={"model.onnx": entry}), tmp_path)
    with pytest.raises(ManifestError, match="batch"):
        gtp_runtime.load(tmp_path)


@pytest.mark.parametrize("wrong", [(0, 4), (5, 4), (1, 2.5), (True, 4)])
def test_ranges_that_are_none(wrong: tuple[Any, Any]) -> None:
    with pytest.raises(InputError):
        BatchRange(*wrong)


def test_a_short_last_run_is_filled_up_to_the_fewest() -> None:
    def sizes(images: int) -> list[tuple[int, int]]:
        return [(len(batch), count) for batch, count in runs(np.ones((images, 2)), BatchRange(3, 5))]

    assert [sizes(images) for images in (1, 4, 5, 7, 8)] == [
        [(3, 1)],
        [(4, 4)],
        [(5, 5)],
        [(5, 5), (3, 2)],
        [(5, 5), (3, 3)],
    ]


def test_a_proof_runs_the_most_a_middle_number_and_the_fewest() -> None:
    for images in (1, 3, 8, 40):
        chosen = proving_runs(images, BatchRange(1, 16))
        assert {len(rows) for rows in chosen} == {1, 8, 16}
        assert set(np.concatenate([rows for rows in chosen if len(rows) == 16])) == set(range(images))


def test_the_worst_answer_of_an_image_counts() -> None:
    expected = {"logits": np.array([[1.0, 2], [3, 4]])}
    answers = {"logits": np.array([[1, 2], [3, 4], [1, 2.5], [3, np.nan]])}
    assert worst_answers(np.array([0, 1, 0, 1]), answers, expected).tolist() == [2, 3]
