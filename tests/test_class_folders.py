"""Which class a folder is: by name, or by the order of timm's and torchvision's image folders."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import DIGITS, ONE_OF_EACH, TINY, Command
from timm.data.readers.reader_image_folder import find_images_and_targets
from torchvision.datasets import ImageFolder

from gtp_exporters import ExportOptions, export
from gtp_exporters.subject import make_subject
from gtp_models.errors import ConfigError
from gtp_runtime import Manifest, evaluate, find_image_set, load, read_manifest
from gtp_runtime.__main__ import main
from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.images.class_folders import FolderClasses, KnownClasses, Order, classes_of_folders, folder_words
from gtp_runtime.images.folders import image_names, image_path
from gtp_runtime.manifest import write_manifest
from gtp_runtime.reference import read_reference

LABELS = ["cat", "dog", "owl"]
IDS = ["n03", "n02", "n01"]
KNOWN = KnownClasses(LABELS, IDS, 3)
SHUFFLED = {f"k{number}": number - 1 for number in range(1, 11)}  # in natural order; the plain one is another


def classes(place: Path, names: tuple[str, ...], known: KnownClasses, order: str | None = None) -> FolderClasses:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    return classes_of_folders(place, image_names(place), known, order)


def of_folders(place: Path, names: tuple[str, ...], known: KnownClasses, order: str | None = None) -> FolderClasses:
    return classes(place, tuple(f"{name}/1.png" for name in names), known, order)


def unnamed(count: int, order: str | None = None) -> KnownClasses:
    return KnownClasses(None, None, count, order)


@pytest.mark.parametrize(
    ("names", "expected", "taken"),
    [
        (("dog", "owl"), {"dog": 1, "owl": 2}, "names"),
        (("n01", "n03"), {"n03": 0, "n01": 2}, "names"),
        (("0", "2"), {"0": 0, "2": 2}, "numbers"),
        (("00", "002"), {"00": 0, "002": 2}, "numbers"),
        (("animals/cat", "animals/dog", "birds/owl"), {"cat": 0, "dog": 1, "owl": 2}, "names"),
        (("cat/val", "owl/train"), {"cat": 0, "owl": 2}, "names"),
        (("1/0001", "2/0007"), {"1": 1, "2": 2}, "numbers"),
    ],
    ids=["labels", "label ids", "numbers", "padded numbers", "leaves", "roots", "roots of many parts"],
)
def test_names_of_the_model_decide(tmp_path: Path, names: tuple[str, ...], expected: Any, taken: str) -> None:
    found = of_folders(tmp_path, names, KNOWN)
    assert (found.classes, found.taken) == (expected, taken)


def test_labels_come_before_numbers(tmp_path: Path) -> None:
    found = of_folders(tmp_path, ("0", "1"), KnownClasses(["1", "0"], None, 2))
    assert found.classes == {"1": 0, "0": 1}


def test_a_path_with_names_of_two_classes_must_be_explained(tmp_path: Path) -> None:
    names = ("dog/cat/1.png", "dog/2.png", "owl/3.png")
    with pytest.raises(ImageError, match="--class-order"):
        classes(tmp_path, names, KNOWN)
    assert list(classes(tmp_path, names, KNOWN, "timm").of(image_names(tmp_path))) == [1, 0, 2]
    assert list(classes(tmp_path, names, KNOWN, "torchvision").of(image_names(tmp_path))) == [1, 1, 2]


def test_names_that_are_not_the_models_need_an_order(tmp_path: Path) -> None:
    names = ("b", "a", "c")
    with pytest.raises(ImageError, match=r"\(a, b, c\) .*\(cat, dog, owl\).*--class-order timm or torchvision"):
        of_folders(tmp_path, names, KNOWN)
    assert of_folders(tmp_path, names, KNOWN, "timm").classes == {"a": 0, "b": 1, "c": 2}
    with pytest.raises(ImageError, match="not classes") as refused:
        of_folders(tmp_path, names, unnamed(4))
    assert "--class-order" not in str(refused.value), "three folders are not four classes in any order"
    with pytest.raises(ImageError, match=r"3 .*4 classes"):
        of_folders(tmp_path, names, unnamed(4), "timm")


def test_an_order_that_contradicts_the_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="--class-order"):
        of_folders(tmp_path, ("cat", "dog", "owl"), KnownClasses(["dog", "cat", "owl"], None, 3), "timm")
    (tmp_path / "part").mkdir()
    assert of_folders(tmp_path / "part", ("dog", "owl"), KNOWN, "torchvision").classes == {"dog": 1, "owl": 2}


def test_a_name_of_two_classes_is_refused_where_a_folder_has_it(tmp_path: Path) -> None:
    known = KnownClasses(["crane", "dog", "crane"], ["n1", "n2", "n3"], 3)
    assert of_folders(tmp_path, ("dog",), known).classes == {"dog": 1}
    with pytest.raises(ImageError, match=r"'crane' .* 0, 2: .* label ids \(n1, n3\) or class numbers"):
        of_folders(tmp_path, ("crane", "dog"), known)
    with pytest.raises(ImageError, match=r"by class numbers"):
        of_folders(tmp_path, ("crane", "dog"), replace(known, label_ids=None))


TREES = [
    ("0", "1", "2", "10", "11"),
    ("1", "2", "3", "10", "20"),
    ("a/x2", "a/x10", "b/y", "b/Z", "w"),
    ("x1/0", "x2/0", "x10/0", "b/0", "c"),
    ("B", "a", "10a", "9a", "A2"),
    ("sub 10", "sub 9", "é", "ß", "z"),
]


@pytest.mark.parametrize("names", TREES, ids=str)
def test_orders_are_those_of_timm_and_torchvision(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").touch()
    images = image_names(tmp_path)
    samples, timms = find_images_and_targets(str(tmp_path))
    found = classes_of_folders(tmp_path, images, unnamed(len(timms)), "timm")
    assert found.classes == timms
    paths = [image_path(tmp_path, name) for name in images]
    assert dict(zip(paths, found.of(images), strict=True)) == dict(samples)
    torchvisions = ImageFolder(str(tmp_path))
    found = classes_of_folders(tmp_path, images, unnamed(len(torchvisions.classes)), "torchvision")
    assert found.classes == torchvisions.class_to_idx
    assert list(found.of(images)) == [label for _, label in sorted(torchvisions.samples)]


def test_without_names_timms_order_is_taken_and_said(tmp_path: Path) -> None:
    found = of_folders(tmp_path, ("1", "2", "10"), unnamed(3))
    assert (found.taken, found.classes) == ("timm", {"1": 0, "2": 1, "10": 2})
    words = folder_words(found.taken, found.classes)
    assert "1 = 0, 2 = 1, 10 = 2" in words and "--class-order torchvision" in words
    assert "--class-order" not in folder_words("timm", {"a": 0, "b": 1})
    known_order = of_folders(tmp_path, (), unnamed(3, "torchvision"))
    assert (known_order.taken, list(known_order.classes)) == ("torchvision", ["1", "10", "2"])


def test_an_unknown_order_is_refused(tmp_path: Path, digits: Path) -> None:
    with pytest.raises(InputError, match="timm, torchvision"):
        find_image_set(DIGITS / "images", read_manifest(digits), class_order="alphabetical")
    (tmp_path / "1.png").touch()
    with pytest.raises(InputError, match="--class-order"):
        find_image_set(tmp_path, read_manifest(digits), class_order="timm")


def test_many_names_are_not_all_listed(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"\(a, b, c, d, e, f, g, h, i, j, \.\.\.\) are not classes"):
        of_folders(tmp_path, tuple("abcdefghijkl"), unnamed(3))
    assert "k = 10" not in folder_words("timm", {letter: index for index, letter in enumerate("abcdefghijkl")})


@pytest.mark.parametrize("names", [("dog", "bird"), ("0", "3"), ("dog", "n01"), ("²", "1")])
def test_other_names_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ImageError, match=r"not classes .*label"):
        of_folders(tmp_path, names, KNOWN)


# --- through the commands: a model that torchvision's image folder trained, whose classes have no names ---------------


@pytest.fixture
def trained(digits_copy: Path) -> Path:
    """The digits model without names of its classes."""
    write_manifest(replace(read_manifest(digits_copy), labels=None), digits_copy)
    return digits_copy


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Folders k1 to k10 in torchvision's order: class 1 is k10."""
    for number, name in enumerate(sorted(SHUFFLED)):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(ONE_OF_EACH[number], tmp_path / "data" / name)
    return tmp_path / "data"


def test_validate_says_the_order_and_keeps_it(command: Command, trained: Path, data: Path) -> None:
    wrong = command("validate", trained, "--data", data)
    assert wrong.code == 0 and "k1 = 0, k2 = 1" in wrong.out and "--class-order torchvision" in wrong.out
    assert read_manifest(trained).results["accuracy"]["model.onnx"]["class_order"] == "timm"
    right = command("validate", trained, "--data", data, "--class-order", "torchvision", "--json")
    accuracy = json.loads(right.out)["accuracy"]
    assert (accuracy["top1"], accuracy["class_order"], accuracy["class_folders"]["k10"]) == (1.0, "torchvision", 1)
    kept = read_manifest(trained).results["accuracy"]["model.onnx"]
    assert kept["class_order"] == "torchvision" and kept["class_folders"]["k10"] == 1


def test_the_runtime_alone_takes_the_order(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["validate", str(trained), "--data", str(data)]
    assert main([*arguments, "--class-order", "torchvision", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["top1"] == 1.0
    assert main(arguments) == 0
    assert "k1 = 0, k2 = 1" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["validate", str(trained), "--class-order", "timm"])
    assert stopped.value.code == 2


def test_the_order_of_the_export_is_the_default(trained: Path, data: Path) -> None:
    write_manifest(replace(read_manifest(trained), class_order="torchvision"), trained)
    with load(trained, threads=1) as model:
        assert evaluate(model, None, data).top1 == 1.0
        assert (evaluate(model, None, data, class_order="timm").top1 or 0) < 0.5


def test_export_keeps_the_order(tmp_path: Path) -> None:
    for name in ("1", "2", "10", "11", "20"):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(ONE_OF_EACH[0], tmp_path / "data" / name)
    options = ExportOptions(data=tmp_path / "data", dense=False, simplify=False)
    made: dict[str | None, Manifest] = {}
    orders: tuple[Order | None, ...] = ("torchvision", None)
    for order in orders:
        place = tmp_path / str(order)
        recipe = replace(TINY, class_order=order)
        made[order] = export(recipe, place, weights="random", options=options, check=False, report=False).manifest
        labels = read_reference(place / "reference.npz").labels
        assert labels is not None and labels.tolist() == ([0, 1, 2, 3, 4] if order else [0, 2, 3, 1, 4])
    assert made["torchvision"].class_order == "torchvision"
    assert made[None].class_order == "timm", "it was assumed"
    assert any("--class-order torchvision" in note for note in made[None].notes)
    with pytest.raises(ConfigError, match="class_order"):
        make_subject(replace(TINY, class_order="timm"), "random", 0, ExportOptions(output="features"))


def test_an_order_that_does_not_fit_fails_the_export(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    shutil.copy(ONE_OF_EACH[0], tmp_path / "data" / "a")
    given = ("--data", tmp_path / "data", "--class-order", "timm", "--no-dense", "--no-check")
    ran = command("export", "digits", "-o", tmp_path / "out", *given)
    assert ran.code == 1 and "10 classes" in ran.error and not (tmp_path / "out" / "model.json").exists()


@pytest.mark.parametrize("name", ["validate", "compare", "tune"])
@pytest.mark.parametrize("given", [(), ("--labels", "x.csv", "--data", "x")])
def test_the_order_needs_folders(command: Command, digits: Path, name: str, given: tuple[str, ...]) -> None:
    options = {"validate": (digits,), "compare": ("digits",), "tune": ("digits", "-o", "x", "--max-drop", "1")}[name]
    ran = command(name, *options, "--class-order", "timm", *given)
    assert ran.code == 2 and "--class-order" in ran.error
