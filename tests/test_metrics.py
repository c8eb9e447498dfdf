"""What is measured of outputs without classes: neighbours, zero-shot classes, masks, depths, and one's own metric."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import DIGITS, ONE_OF_EACH, TINY, Command, python
from PIL import Image
from test_whole_modules import Depth, Segmenter
from test_whole_modules import exported as export_whole

import gtp_runtime
from gtp_exporters import ExportOptions, export
from gtp_runtime.accuracy import Metric, Tally
from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.images.preprocessing import Preprocessing
from gtp_runtime.images.targets import Targets
from gtp_runtime.metrics import ABS_REL, MEAN_IOU, RELATIVE, as_metric, correlation, relative_error, resized
from gtp_runtime.neighbours import AGREEMENT, Gallery
from gtp_runtime.prompts import read_prompts
from gtp_runtime.question import question_of, score

LEAN = ExportOptions(simplify=False, trace=False)
RNG = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of each of three digits, in folders of names that no model has."""
    folder = tmp_path_factory.mktemp("labelled")
    for digit, name in enumerate(("apple", "pear", "plum")):
        (folder / name).mkdir()
        for path in sorted((DIGITS / "images" / str(digit)).iterdir())[:4]:
            (folder / name / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flat")
    for digit, path in enumerate(ONE_OF_EACH[:4]):
        Image.open(path).convert("RGB").resize((32, 32)).save(folder / f"{digit}.png")
    return folder


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("features") / "tiny"
    options = replace(LEAN, output="features")
    export(TINY, place, weights="random", options=options, check=False, report=False)
    return place


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("depth") / "out"
    export_whole(Depth(), place, check=False, options=LEAN)
    return place


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("segmenter") / "out"
    export_whole(Segmenter(), place, check=False, options=LEAN)
    return place


def test_each_image_is_looked_up_among_the_others() -> None:
    features = RNG.normal(size=(9, 5)).astype(np.float32)
    reduced = features + RNG.normal(0, 0.3, (9, 5)).astype(np.float32)
    classes = np.array([0, 1, 2] * 3)
    names = [str(index).encode() for index in range(9)]
    scores = Gallery.of(features, names, classes).scores(reduced, features, names, classes)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for prefix, queries in (("", reduced), ("dense ", features)):
        for index, query in enumerate(queries):
            cosines = unit @ query / np.linalg.norm(query)
            others = sorted((other for other in range(9) if other != index), key=lambda other: -cosines[other])
            hits = [classes[other] == classes[index] for other in others]
            precisions = [sum(hits[: rank + 1]) / (rank + 1) for rank, hit in enumerate(hits) if hit]
            assert scores[f"{prefix}recall@1"][index] == hits[0]
            assert scores[f"{prefix}recall@5"][index] == any(hits[:5])
            assert scores[f"{prefix}mAP"][index] == pytest.approx(np.mean(precisions))
            votes = [sum(np.exp(cosines[one] / 0.07) for one in others if classes[one] == label) for label in range(3)]
            name = "dense_top1" if prefix else "top1"
            assert scores[name][index] == (np.argmax(votes) == classes[index])
    assert (scores["top1_drop"] == scores["dense_top1"].astype(float) - scores["top1"]).all()
    assert (scores[AGREEMENT] == 1).all(), "eight others, and ten neighbours are looked at"


def test_a_reference_set_without_classes_has_neighbours_alone() -> None:
    features = RNG.normal(size=(30, 4)).astype(np.float32)
    names = [str(index).encode() for index in range(30)]
    gallery = Gallery.of(features, names, None)
    assert set(gallery.scores(features, features, names, None)) == {AGREEMENT}
    assert gallery.scores(features, None, names, None) == {}
    other = gallery.scores(-features, features, names, None)[AGREEMENT]
    assert other.max() < 0.5


def test_differences_are_relative_to_the_dense_output() -> None:
    dense = np.array([[3.0, 4.0], [0.0, 2.0]])
    assert relative_error(dense, dense + [[0, 5], [1, 0]]).tolist() == [1.0, 0.5]
    assert correlation(dense, 2 * dense + 1) == pytest.approx([1, 1])
    scores = RELATIVE.scores({"a": dense, "b": dense}, {"a": dense, "b": 2 * dense}, None)
    assert scores["distance"] == pytest.approx([0.5**0.5] * 2)


def test_maps_are_resized_as_torch_does() -> None:
    maps = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    for size in ((8, 15), (3, 5), (4, 5)):
        expected = torch.nn.functional.interpolate(torch.from_numpy(maps), size, mode="bilinear").numpy()
        assert np.allclose(resized(maps, size), expected, atol=1e-6)


def test_iou_is_over_all_images() -> None:
    logits = {"out": np.zeros((2, 3, 2, 2), np.float32)}
    logits["out"][:, 1] = 1  # class 1 everywhere
    masks = np.array([[[1, 1], [1, 0]], [[0, 255], [0, -1]]])
    tally = Tally()
    for one in range(2):
        part = {"out": logits["out"][one : one + 1]}
        tally.add(MEAN_IOU.scores(part, part, masks[one : one + 1]), 1)
    found = tally.accuracy(MEAN_IOU)
    assert found.value == pytest.approx((3 / 6 + 0 / 3) / 2), "3 of 6 known pixels; class 2 is nowhere"
    assert (found.dense_value, found.distance, found.distance_se, found.metric) == (found.value, 0, None, "mIoU")
    assert found.measures == {}
    with pytest.raises(InputError, match="classes"):
        MEAN_IOU.scores({"out": logits["out"][:, :1]}, {"out": logits["out"][:, :1]}, masks)


def test_depth_errors_are_at_the_same_median() -> None:
    real = RNG.uniform(1, 5, (2, 4, 4))
    assert ABS_REL.scores({"d": 3 * real}, {"d": 7 * real}, real)["value"] == pytest.approx([0, 0], abs=1e-6)
    holes = real.copy()
    holes[:, 0] = 0
    holes[:, 1, 0] = np.nan
    assert np.isfinite(ABS_REL.scores({"d": real}, {"d": real[:, None] + 1}, holes)["distance"]).all()


def largest(dense: Any, outputs: Any, truth: Any) -> np.ndarray:
    return np.abs(dense["x"] - outputs["x"]).max(1)  # type: ignore[no-any-return]


class Hits:
    name, unit, higher_is_better = "hits", "points", True

    def __call__(self, dense: Any, outputs: Any, truth: Any) -> float:
        return 100 * float((outputs["x"].argmax(1) == truth).mean())


def test_a_metric_of_ones_own() -> None:
    dense, truth = RNG.normal(size=(8, 3)), RNG.integers(0, 3, 8)
    worse = {"x": dense - 2.0 * np.eye(3)[truth]}
    plain = score(worse, {"x": dense}, truth, question_of("map", own=largest))
    assert plain["distance"] == pytest.approx([2.0] * 8)
    metric = as_metric(Hits())
    tally = Tally()
    tally.add(score(worse, {"x": dense}, truth, question_of("map", own=metric)), 8)
    found = tally.accuracy(metric)
    assert (found.metric, found.unit) == ("hits", "points")
    assert found.dense_value is not None and found.value is not None
    assert found.distance == pytest.approx(found.dense_value - found.value) and found.distance > 0
    for wrong in (lambda *_: np.zeros(3), lambda *_: np.nan):
        with pytest.raises(InputError):
            as_metric(wrong).scores({"x": dense}, worse, truth)
    with pytest.raises(InputError):
        as_metric(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["shortest", "squash", "contain"])
def test_masks_lie_over_the_pixels_that_the_model_sees(tmp_path: Path, mode: str) -> None:
    mask = RNG.integers(0, 5, (20, 30)).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "one.png")
    preprocessing = Preprocessing([16, 16], mode, [16, 16], "nearest", [0.5] * 3, [0.5] * 3, [9, 9, 9])
    seen = preprocessing.pixels(np.repeat(mask[..., None], 3, 2))[..., 0].astype(float)
    read = Targets(tmp_path, "masks").read("one.jpg", preprocessing)
    assert read.tolist() == np.where(seen == 9, -1, seen).tolist()


def test_truth_that_cannot_be_used(tmp_path: Path) -> None:
    plain = Preprocessing([4, 4], "squash", [4, 4], "nearest", [0.5] * 3, [0.5] * 3, [0, 0, 0])
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    np.save(tmp_path / "cube.npy", np.ones((2, 2, 2)))
    np.save(tmp_path / "objects.npy", np.array([[object()]]), allow_pickle=True)
    np.save(tmp_path / "empty.npy", np.zeros((4, 4)))
    np.save(tmp_path / "good.npy", np.ones((4, 4)))
    Image.fromarray(np.full((4, 4), 70000 // 2, np.uint16)).save(tmp_path / "deep.png")
    depths = Targets(tmp_path, "depths")
    for name in ("colour", "cube", "objects", "empty", "none"):
        with pytest.raises(ImageError, match=name):
            depths.read(f"{name}.jpg", plain)
    assert depths.read("good.jpg", plain).tolist() == np.ones((4, 4)).tolist()
    assert depths.read("deep.jpg", plain)[0, 0] == 35000


def text_embeddings(path: Path, dim: int, names: tuple[str, ...] = ("apple", "pear", "plum"), **more: Any) -> Path:
    np.savez(path, embeddings=RNG.normal(size=(len(names), dim)).astype(np.float32), names=np.array(names), **more)
    return path


def test_text_embeddings_are_read_as_they_are_said(tmp_path: Path) -> None:
    prompts = read_prompts(text_embeddings(tmp_path / "text.npz", 4, scale=2.0))
    features = RNG.normal(size=(5, 4)).astype(np.float32)
    logits = prompts.logits(features)
    assert np.abs(logits).max() <= 2 and logits.shape == (5, 3)
    assert (prompts.logits(7 * prompts.embeddings).argmax(1) == [0, 1, 2]).all()
    with pytest.raises(InputError, match="5"):
        prompts.logits(RNG.normal(size=(2, 5)))
    np.savez(tmp_path / "other.npz", features=features)
    np.savez(tmp_path / "objects.npz", embeddings=features, names=np.array([object()] * 5))
    for name in ("missing.npz", "other.npz", "objects.npz"):
        with pytest.raises(InputError, match=name):
            read_prompts(tmp_path / name)


def validated(command: Command, *arguments: Any) -> dict[str, Any]:
    ran = command("validate", *arguments, "--json")
    assert ran.code == 0, ran.err
    return dict(json.loads(ran.out)["accuracy"])


def test_features_of_labelled_images(command: Command, features: Path, labelled: Path) -> None:
    found = validated(command, features, "--data", labelled)
    assert (found["quality"], found["metric"], found["images"]) == ("k-NN top-1", "relative error", 12)
    assert {"cosine", AGREEMENT, "recall@1", "dense recall@1", "mAP", "dense mAP"} <= set(found["measures"])
    assert found["top1_drop"] == pytest.approx(found["dense_top1"] - found["top1"]) and found["divergence"] is None
    assert gtp_runtime.read_manifest(features).results["accuracy"]["model.onnx"]["metric"] == "relative error"
    ran = command("validate", features, "--data", labelled, "--max-distance", "1e-9")
    assert ran.code == 3 and "k-NN top-1" in ran.out
    assert command("validate", features, "--data", labelled, "--max-drop", "100", "--max-distance", "9").code == 0
    ran = command("validate", f"{features}/dense.onnx", "--data", labelled, "--json")
    alone = json.loads(ran.out)["accuracy"]
    assert alone["top1"] == found["dense_top1"] and alone["distance"] is None


def test_labels_of_a_file_are_classes_too(features: Path, labelled: Path, tmp_path: Path) -> None:
    lines = [f"{path.relative_to(labelled)},{path.parent.name}" for path in labelled.rglob("*.png")]
    (tmp_path / "labels.csv").write_text("image,label\n" + "\n".join(lines), "utf-8")
    with gtp_runtime.load(features) as model, gtp_runtime.load(features / "dense.onnx") as dense:
        one, other = (
            gtp_runtime.evaluate(model, dense, labelled, labels=file) for file in (tmp_path / "labels.csv", None)
        )
    assert one.to_dict() | {"class_order": "names"} == other.to_dict()


def test_a_reference_set_is_made_again_for_what_is_resumed(features: Path, labelled: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(task: str, share: float | None = None) -> None:
        if task == "measuring accuracy" and share and share < 1:
            raise KilledError

    many = tmp_path / "many"
    for copy in range(2):
        for path in labelled.rglob("*.png"):
            place = many / path.parent.name / f"{copy}{path.name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    with gtp_runtime.load(features) as model, gtp_runtime.load(features / "dense.onnx") as dense:
        with pytest.raises(KilledError):
            gtp_runtime.evaluate(model, dense, many, kill, resume=tmp_path / "kept.json")
        resumed = gtp_runtime.evaluate(model, dense, many, resume=tmp_path / "kept.json")
        assert resumed == gtp_runtime.evaluate(model, dense, many)
        with pytest.raises(InputError, match="measured"):
            gtp_runtime.evaluate(model, dense, many, resume=tmp_path / "kept.json", metric=relative_of_all)


def relative_of_all(dense: Any, outputs: Any, truth: Any) -> float:
    return float(relative_error(dense["features"], outputs["features"]).mean())


def test_features_without_labels(command: Command, features: Path, flat: Path) -> None:
    found = validated(command, features, "--data", flat)
    assert (found["quality"], found["top1"]) == ("", None)
    assert found["distance"] > 0 and AGREEMENT in found["measures"]
    ran = command("validate", features, "--data", flat, "--max-drop", "1")
    assert ran.code == 2 and "--max-distance" in ran.err
    with gtp_runtime.load(features) as model, gtp_runtime.load(features / "dense.onnx") as dense:
        own = gtp_runtime.evaluate(model, dense, flat, metric=relative_of_all)
        assert own.metric == "relative_of_all" and own.distance == pytest.approx(found["distance"], rel=1e-4)
        with pytest.raises(InputError, match="dense"):
            gtp_runtime.evaluate(model, None, flat, metric=relative_of_all)


def test_text_embeddings_make_classes(command: Command, features: Path, labelled: Path, tmp_path: Path) -> None:
    file = text_embeddings(tmp_path / "text.npz", 24)
    found = validated(command, features, "--data", labelled, "--classes-from", file)
    assert (found["quality"], found["metric"]) == ("zero-shot top-1", "divergence")
    assert found["top5"] == 1.0 and found["divergence"] > 0 and found["agreement"] is not None
    wrong = text_embeddings(tmp_path / "wrong.npz", 7)
    ran = command("validate", features, "--data", labelled, "--classes-from", wrong)
    assert ran.code == 2 and "24" in ran.err


def truth_of(flat: Path, place: Path, make: Callable[[int], Image.Image]) -> Path:
    place.mkdir(exist_ok=True)
    for index, path in enumerate(sorted(flat.iterdir())):
        make(index).save(place / f"{path.stem}.png")
    return place


def test_masks_and_depths(command: Command, segmenter: Path, depth: Path, flat: Path, tmp_path: Path) -> None:
    masks = truth_of(flat, tmp_path / "masks", lambda index: Image.new("L", (32, 32), index))
    found = validated(command, segmenter, "--data", flat, "--masks", masks)
    assert found["metric"] == "mIoU" and 0 <= found["value"] <= 1
    assert found["distance"] == pytest.approx(found["dense_value"] - found["value"])
    grey = RNG.integers(1, 60000, (32, 32)).astype(np.uint16)
    depths = truth_of(flat, tmp_path / "depths", lambda _: Image.fromarray(grey))
    found = validated(command, depth, "--data", flat, "--depths", depths)
    assert found["metric"] == "AbsRel" and found["value"] > 0 and found["distance_se"] is not None
    assert {"correlation of depth", "relative error of mean"} <= set(found["measures"])
    ran = command("validate", segmenter, "--data", flat, "--depths", depths)
    assert ran.code == 2 and "logits" in ran.err, "no output is a depth"
    (masks / "3.png").unlink()
    ran = command("validate", segmenter, "--data", flat, "--masks", masks)
    assert ran.code == 2 and "3.png" in ran.err


def test_what_does_not_fit_is_refused(
    command: Command, features: Path, segmenter: Path, digits: Path, flat: Path
) -> None:
    data = ("--data", flat)
    for path, *options in (
        (digits, "--masks", flat),
        (features, "--depths", flat),
        (segmenter, "--labels", flat / "0.png"),
        (segmenter, "--max-drop", "1"),
        (segmenter, "--masks", flat / "none"),
        (segmenter, "--masks", flat, "--depths", flat),
        (digits, "--classes-from", flat / "0.png"),
    ):
        ran = command("validate", path, *data, *options)
        assert (ran.code, ran.err.count("error:") + ran.err.count("Error")) == (2, 1), ran.err
    ran = command("validate", segmenter, "--masks", flat)
    assert ran.code == 2 and "--data" in ran.err


def test_without_torch(features: Path, labelled: Path) -> None:
    words = ["validate", str(features), "--data", str(labelled)]
    run = f"from gtp_runtime.__main__ import main\nassert main({words}) == 0"
    ran = python(f"{run}\nprint('torch' in sys.modules)")
    assert ran.code == 0, ran.err
    assert "k-NN top-1" in ran.out and ran.out.split()[-1] == "False"


def test_a_metric_object_is_its_own() -> None:
    metric = Metric("mine", "m", largest)
    assert as_metric(metric) is metric
