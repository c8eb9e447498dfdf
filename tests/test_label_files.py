"""Files of labels: tables, lists, and ImageNet's ground truth with its own ids."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from gtp_runtime import Manifest, find_image_set, read_manifest
from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.images import labels as image_labels
from gtp_runtime.images.labels import ILSVRC, META
from gtp_runtime.messages import is_text

NAMES = ("val_1.JPEG", "val_2.JPEG", "val_3.JPEG")
IDS = ["n03", "n02", "n01"]


@pytest.fixture
def manifest(tiny: Path) -> Manifest:
    found = read_manifest(tiny)
    return replace(
        found, labels=["tench, Tinca", "dog", "owl"], label_ids=IDS, model=replace(found.model, num_classes=3)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "val"
    place.mkdir()
    for name in NAMES:
        (place / name).touch()
    return place


def classes(folder: Path, manifest: Manifest, name: str, text: str) -> list[int]:
    path = folder.parent / name
    path.write_text(text, "utf-8")
    found = find_image_set(folder, manifest, path).classes
    assert found is not None and found.dtype == np.int32
    return list(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "val_3.JPEG,owl\nval_1.JPEG,dog\nval_2.JPEG,'tench'\n".replace("'tench'", '"tench, Tinca"')),
        (
            "labels.csv",
            "\ufeffFile,other,Label\nval_1.JPEG,9,n02\nval_2.JPEG,8,n03\nval_3.JPEG,7,n01\nval_4.JPEG,,n01\n",
        ),
        ("labels.tsv", "label\timage\r\n1\tval_1\r\n0\tval_2\r\n2\tval_3\r\n"),
        (
            "LOC_val_solution.csv",
            "ImageId,PredictionString\nval_1,n02 85 1 49 27\nval_2,n03 1 2 3 4\nval_3,n01 0 0 1 1\n",
        ),
        ("val.txt", "val_1.JPEG 1\nval_2.JPEG 0\n\nval_3.JPEG 2\n"),
        ("synset_labels.txt", "n02\nn03\nn01\n"),
        ("names.txt", "dog\ntench, Tinca\nowl"),
        ("list.csv", "class\nn02\nn03\nn01\n"),
    ],
    ids=["csv", "named columns", "tsv by stem", "Kaggle's", "Caffe's", "a list", "a list with blanks", "one column"],
)
def test_every_form_says_the_same(folder: Path, manifest: Manifest, name: str, text: str) -> None:
    assert classes(folder, manifest, name, text) == [1, 0, 2]


def test_a_line_may_be_there_twice(folder: Path, manifest: Manifest) -> None:
    text = "val_1.JPEG,1\nval_2.JPEG,0\nval_1.JPEG,1\nval_3.JPEG,2\nother.JPEG,0\nother.JPEG,1\n"
    assert classes(folder, manifest, "l.csv", text) == [1, 0, 2]


def test_imagenets_own_ids_need_the_development_kit(folder: Path, manifest: Manifest) -> None:
    with pytest.raises(ImageError, match=r"meta\.mat beside"):
        classes(folder, manifest, ILSVRC, "1\n2\n3\n")
    (folder.parent / META).write_bytes(b"MATLAB no more")
    with pytest.raises(ImageError, match=r"meta\.mat: "):
        classes(folder, manifest, ILSVRC, "1\n2\n3\n")
    synsets = np.array([(1, "n01"), (2, "n02"), (3, "n03"), (4, "n99")], [("ILSVRC2012_ID", "O"), ("WNID", "O")])
    savemat(folder.parent / META, {"synsets": synsets})
    assert classes(folder, manifest, ILSVRC, "1\n3\n2\n") == [2, 0, 1]
    with pytest.raises(ImageError, match=r"n99"):
        classes(folder, manifest, ILSVRC, "4\n3\n2\n")
    with pytest.raises(ImageError, match=r"meta\.mat .*not hold: 0"):
        classes(folder, manifest, ILSVRC, "0\n3\n2\n")


def test_one_file_name_in_two_folders_is_told_by_the_path(folder: Path, manifest: Manifest) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "1.png").touch()
    rows = "val_1.JPEG,1\nval_2.JPEG,0\nval_3.JPEG,2\n"
    assert classes(folder, manifest, "l.csv", rows + "a/1.png,1\nb/1.png,2\n") == [1, 2, 1, 0, 2]
    with pytest.raises(ImageError, match=r"l\.csv .*a/1\.png"):
        classes(folder, manifest, "l.csv", rows + "1.png,1\n")


REST = "val_2.JPEG,1\nval_3.JPEG,1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no labels"),
        ("image,label\n", "holds no labels"),
        ("val_1.JPEG,0\nval_2.JPEG\n", r"a line without a class: 'val_2\.JPEG'"),
        ("val_1.JPEG,0\nval_3.JPEG,1\n", r"says no class of val_2\.JPEG: it takes a line for every image"),
        ("val_1.JPEG,cat\nval_2.JPEG,1\nval_3.JPEG,1\n", r"\(it says cat, 1\): give its labels \(tench, Tinca, dog"),
        ("val_1.JPEG,0\n" + REST + "val_1.JPEG,2\n", r"several classes of val_1\.JPEG"),
        ("0\n1\n", "lists 2 classes for 3 images"),
        ('"val_1.JPEG,0\n', "cannot read the labels"),
    ],
)
def test_what_does_not_fit_is_said(folder: Path, manifest: Manifest, text: str, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        classes(folder, manifest, "labels.csv", text)


HOSTILE = {
    "control characters": ('val_1.JPEG,"\x1b[31mred\nerror: x"\n' + REST, r"it says \\x1b\[31mred error"),
    "a number of many digits": ("val_1.JPEG," + "1" * 5000 + "\n" + REST, "classes that this model does not have"),
    "a class for each line": ("".join(f"val_{line},{line}\n" for line in range(50)), "names more than 40 classes"),
    "long names": ("x" * 500 + ",1\n" + "val_1,1\n" * 50, "too long: they take more than 20000 bytes of memory"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_labels(folder: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(image_labels, "MOST_CLASSES", 40)
    monkeypatch.setattr(image_labels, "LARGEST_NAMES", 20_000)
    text, words = HOSTILE[name]
    with pytest.raises(ImageError, match=words) as refused:
        classes(folder, manifest, "labels.csv", text)
    assert is_text(str(refused.value)) and len(str(refused.value)) < 1000


def test_labels_that_wait_or_never_end(folder: Path, manifest: Manifest) -> None:
    os.mkfifo(folder.parent / "fifo.csv")
    for path in (folder.parent / "fifo.csv", Path("/dev/zero"), folder):
        with pytest.raises(ImageError):
            find_image_set(folder, manifest, path)


def test_labels_and_order_exclude_each_other(folder: Path, manifest: Manifest) -> None:
    with pytest.raises(InputError, match="one of the two"):
        find_image_set(folder, manifest, "labels.csv", class_order="timm")
    with pytest.raises(ImageError, match=r"none\.csv"):
        find_image_set(folder, manifest, folder / "none.csv")
