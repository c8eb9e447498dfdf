"""Accuracy on folders of any size: in bounded memory, past images that cannot be read, resumed after a kill."""

import gc
import json
import os
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import DIGITS, ONE_OF_EACH, SEVEN, Command, python
from test_accuracy import measure, scored

import gtp_runtime
from gtp_runtime import Model, evaluation, find_image_set
from gtp_runtime.accuracy import NAMED, Accuracy, Tally
from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.evaluation import evaluate_each
from gtp_runtime.prediction import AHEAD, count_workers, read_ahead


@pytest.fixture
def dense(digits: Path) -> Iterator[Model]:
    with gtp_runtime.load(digits / "dense.onnx", threads=1) as found:
        yield found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An image of each digit in class folders, a broken one and an empty one."""
    for digit, image in enumerate(ONE_OF_EACH):
        (tmp_path / "data" / str(digit)).mkdir(parents=True)
        shutil.copy(image, tmp_path / "data" / str(digit))
    (tmp_path / "data" / "3" / "broken.png").write_bytes(SEVEN.read_bytes()[:80])
    (tmp_path / "data" / "9" / "empty.png").touch()
    return tmp_path / "data"


def numbers(accuracy: Accuracy) -> dict[str, float]:
    return {name: value for name, value in accuracy.to_dict().items() if isinstance(value, int | float)}


def test_sums_of_parts_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    logits, dense, classes = rng.normal(size=(50, 7)), rng.normal(size=(50, 7)), rng.integers(0, 7, 50)
    tally = Tally()
    for part in np.split(np.arange(50), [1, 9, 30]):
        tally.add(scored(logits[part], dense[part], classes[part]), len(part))
    assert numbers(tally.accuracy()) == pytest.approx(numbers(measure(logits, dense, classes)))
    assert tally.images == 50


def test_images_that_cannot_be_read_are_counted_and_named(model: Model, dense: Model, data: Path) -> None:
    found = gtp_runtime.evaluate(model, dense, data)
    assert (found.images, found.top1, found.dense_top1, found.unreadable) == (10, 1.0, 1.0, 2)
    assert ["broken.png" in found.unreadable_images[0], "empty.png" in found.unreadable_images[1]] == [True, True]
    with pytest.raises(ImageError, match=r"broken\.png"):
        gtp_runtime.evaluate(model, dense, data, strict=True)
    for image in data.rglob("*.png"):
        image.write_bytes(b"")
    with pytest.raises(ImageError, match=r"none of the 12 .*0/"):
        gtp_runtime.evaluate(model, dense, data)


def test_only_so_many_names_are_kept() -> None:
    tally = Tally()
    for index in range(NAMED + 5):
        tally.add_unreadable(f"{index}.png")
    assert (tally.unreadable, len(tally.unreadable_images)) == (NAMED + 5, NAMED)


def test_files_that_take_images_differently_are_each_given_theirs(model: Model, dense: Model, data: Path) -> None:
    alike = gtp_runtime.evaluate(model, dense, data)
    darker = replace(dense.manifest.preprocessing, mean=[0.9] * 3)
    dense.manifest = replace(dense.manifest, preprocessing=darker)
    apart = gtp_runtime.evaluate(model, dense, data, workers=1)
    assert apart.top1 == alike.top1
    assert apart.dense_top1 == gtp_runtime.evaluate(dense, None, data).top1
    assert apart.divergence != alike.divergence


def test_an_evaluation_goes_on_where_it_was_killed(
    model: Model, dense: Model, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gtp_runtime.evaluate(model, dense, data)
    monkeypatch.setattr(evaluation, "SECONDS", 0.0)
    monkeypatch.setattr("gtp_runtime.evaluation.CHUNK", 4)
    kept, shares = tmp_path / "kept.json", []

    def killed(task: str, share: float | None = None) -> None:
        monkeypatch.setattr(evaluation.Checkpoint, "write", lambda self: None)  # nothing is written after a kill -9
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gtp_runtime.evaluate(model, dense, data, killed, resume=kept)
    monkeypatch.undo()
    assert json.loads(kept.read_text("utf-8"))["done"] == 4
    found = gtp_runtime.evaluate(model, dense, data, lambda task, share=None: shares.append(share), resume=kept)
    assert numbers(found) == pytest.approx(numbers(whole))
    assert found.unreadable_images == whole.unreadable_images
    assert shares == [1.0]
    assert json.loads(kept.read_text("utf-8"))["done"] == 12
    assert gtp_runtime.evaluate(model, dense, data, killed, resume=kept) == found, "nothing is read again"


def test_several_files_are_measured_in_one_reading(
    model: Model, dense: Model, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, kept = find_image_set(data, model.manifest), [tmp_path / "0.json", tmp_path / "1.json"]
    alone = [gtp_runtime.evaluate(file, dense, images) for file in (model, dense)]
    gtp_runtime.evaluate(model, dense, images, resume=kept[0])
    monkeypatch.setattr("gtp_runtime.evaluation.CHUNK", 5)
    runs: list[int] = []
    outputs = Model._outputs
    monkeypatch.setattr(
        Model, "_outputs", lambda self, *given, **more: (runs.append(id(self)), outputs(self, *given, **more))[1]
    )
    for kept_in in (kept, None):
        found = evaluate_each([model, dense], dense, images, resume=kept_in)
        assert [numbers(one) for one in found] == [pytest.approx(numbers(one)) for one in alone]
        assert [one.unreadable_images for one in found] == [one.unreadable_images for one in alone]
        assert (id(model) in runs) == (kept_in is None), "that one was done"
    with pytest.raises(InputError):
        evaluate_each([dense, model], dense, images, resume=kept)


def test_a_part_is_spread_over_the_folder(model: Model, data: Path) -> None:
    images = find_image_set(data, model.manifest)
    few = images.spread(3)
    assert [few.name(index).partition("/")[0] for index in range(3)] == ["0", "4", "9"]
    assert list(few.classes) == [0, 4, 9] and images.spread(99) is images
    assert few.digest() != images.digest()


def test_a_process_that_is_killed_leaves_what_was_done(digits: Path, tmp_path: Path) -> None:
    kept, folder = tmp_path / "kept.json", tmp_path / "data"
    for index in range(200):
        (folder / "7").mkdir(parents=True, exist_ok=True)
        os.link(SEVEN, folder / "7" / f"{index:03d}.png") if index < 2 else shutil.copy(
            SEVEN, folder / "7" / f"{index:03d}.png"
        )
    killed = f"""
import os, signal, gtp_runtime
from gtp_runtime import evaluation
evaluation.SECONDS = 0.0
tell = lambda task, share=None: os.kill(os.getpid(), signal.SIGKILL) if share > 0.5 else None
with gtp_runtime.load({str(digits)!r}, threads=1) as model:
    gtp_runtime.evaluate(model, None, {str(folder)!r}, tell, resume={str(kept)!r})
"""
    assert python(f"exec({killed!r})").code == -9
    done = json.loads(kept.read_text("utf-8"))["done"]
    assert 100 < done < 200
    with gtp_runtime.load(digits, threads=1) as model:
        found = gtp_runtime.evaluate(model, None, folder, resume=kept)
        assert found == gtp_runtime.evaluate(model, None, folder)


def test_a_checkpoint_of_something_else_is_refused(
    model: Model, dense: Model, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.json"
    gtp_runtime.evaluate(model, dense, data, resume=kept)
    with pytest.raises(InputError, match=r"\(dense, preprocessing of dense differ\)"):
        gtp_runtime.evaluate(model, None, data, resume=kept)
    other = replace(model.manifest, preprocessing=replace(model.manifest.preprocessing, interpolation="nearest"))
    with monkeypatch.context() as patch:
        patch.setattr(model, "manifest", other)
        with pytest.raises(InputError, match=r"\(preprocessing of model differ\)"):
            gtp_runtime.evaluate(model, dense, data, resume=kept)
    (data / "3" / "broken.png").write_bytes(SEVEN.read_bytes())
    with pytest.raises(InputError, match=r"\(images differ\)"):
        gtp_runtime.evaluate(model, dense, data, resume=kept)
    for content in (b"", b"[]", b'{"format": "other"}', b"\xff"):
        kept.write_bytes(content)
        with pytest.raises(InputError, match=r"kept\.json keeps no"):
            gtp_runtime.evaluate(model, dense, data, resume=kept)
        assert kept.read_bytes() == content, "what is none of ours is never replaced"
    with pytest.raises(InputError, match=r"missing/kept\.json"):
        gtp_runtime.evaluate(model, dense, data, resume=tmp_path / "missing" / "kept.json")
    with pytest.raises(InputError):
        gtp_runtime.evaluate(model, dense, data, resume=tmp_path)


def test_what_is_kept_does_not_grow_with_the_images(batched: Model, tmp_path: Path) -> None:
    counts, peaks = (300, 3000), []
    for count in counts:
        folder = tmp_path / str(count) / "1"
        folder.mkdir(parents=True)
        source = folder / "0.png"
        shutil.copy(SEVEN, source)
        for index in range(1, count):
            os.link(source, folder / f"{index}.png")
    gtp_runtime.evaluate(batched, None, tmp_path / "3000", workers=2)  # imports what it uses, fills the watch of runs
    for count in counts:
        gc.collect()
        tracemalloc.start()
        assert gtp_runtime.evaluate(batched, None, tmp_path / str(count), workers=2).images == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 200 * 2700, "names take some bytes each, images nothing"


def test_reading_ahead_is_bounded_and_in_order() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    found = read_ahead(lambda item: item * item, items(), 3)
    assert next(found) == (0, 0)
    assert len(taken) == 3 * AHEAD + 1
    assert list(found) == [(item, item * item) for item in range(1, 100)]
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda item: 1 // item, [1, 0], 2))


def test_workers_are_counted() -> None:
    assert count_workers(3) == 3
    assert count_workers(None) >= 1
    for other in (0, -1, True, 1.5):
        with pytest.raises(InputError, match=r"^workers="):
            count_workers(other)  # type: ignore[arg-type]


def test_an_image_set_names_its_images(model: Model, data: Path) -> None:
    images = find_image_set(data, model.manifest)
    assert (len(images), images.name(0)) == (12, f"0/{ONE_OF_EACH[0].name}")
    assert images.path(0) == str(data / images.name(0))
    assert images.classes is not None and list(images.classes) == [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 9]
    assert images.digest() != find_image_set(data / "3", model.manifest).digest()


def test_validate_counts_and_keeps_the_accuracy(
    command: Command, digits_copy: Path, data: Path, tmp_path: Path
) -> None:
    ran = command("validate", digits_copy, "--data", data, "--resume", tmp_path / "kept.json", "--workers", "2")
    assert ran.code == 0
    assert "accuracy on 10 images" in ran.out
    assert "note: 2 of 12 images" in ran.error
    assert "broken.png" in ran.error
    kept = gtp_runtime.read_manifest(digits_copy).results["accuracy"]["model.onnx"]
    assert (kept["images"], kept["top1"], kept["unreadable"], kept["data"]) == (10, 1.0, 2, "data")
    found = json.loads(command("validate", digits_copy, "--data", data, "--json", "-q").out)["accuracy"]
    assert (found["unreadable"], len(found["unreadable_images"])) == (2, 2)
    ran = command("validate", digits_copy, "--data", data, "--strict")
    assert (ran.code, ran.out) == (1, "")
    assert "cannot read" in ran.error


def test_validate_with_a_file_of_labels(command: Command, digits_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for digit, image in enumerate(ONE_OF_EACH):
        shutil.copy(image, tmp_path / "flat" / f"val_{digit}.png")
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\n" + "".join(f"val_{digit}.png,{digit}\n" for digit in range(10)), "utf-8")
    ran = command("validate", digits_copy, "--data", tmp_path / "flat", "--labels", labels, "--json")
    assert json.loads(ran.out)["accuracy"]["top1"] == 1.0
    ran = command("validate", digits_copy, "--data", tmp_path / "flat", "--labels", labels, "--class-order", "timm")
    assert ran.code == 2 and "--labels" in ran.error and "--class-order" in ran.error


@pytest.mark.parametrize(
    "option", [("--labels", "x"), ("--strict",), ("--resume", "x"), ("--workers", "2"), ("--max-drop", "1")]
)
def test_options_of_the_data_need_data(command: Command, digits: Path, option: tuple[str, ...]) -> None:
    ran = command("validate", digits, *option)
    assert ran.code == 2
    assert f"{option[0]} needs --data DIR" in ran.error


def test_the_folder_of_the_recipe_is_measured_as_before(model: Model, dense: Model) -> None:
    found: Any = gtp_runtime.evaluate(model, dense, DIGITS / "images")
    assert (found.images, round(found.top1, 4), round(found.dense_top1, 4)) == (360, 0.9861, 0.9944)
