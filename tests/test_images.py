"""Image folders: which files are images, and which class a sub-folder names."""

from pathlib import Path

import pytest

from gtp_runtime.errors import ImageError
from gtp_runtime.images import class_indices, find_images

LABELS = ["cat", "dog", "owl"]
IDS = ["n03", "n02", "n01"]


def folder(place: Path, *names: str) -> list[Path]:
    """Make empty files and return the images among them."""
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    return find_images(place)


def test_images_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    found = folder(tmp_path, "b/2.PNG", "a/deep/1.jpeg", "a/0.webp", "notes.txt", "b/2.json")
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/0.webp", "a/deep/1.jpeg", "b/2.PNG"]


def test_no_folder_or_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no folder .*missing: give a folder"):
        find_images(tmp_path / "missing")
    with pytest.raises(ImageError, match=r"no image in .*: it takes \.bmp, "):
        find_images(tmp_path)
    (tmp_path / "one.png").touch()
    with pytest.raises(ImageError, match="no folder"):
        find_images(tmp_path / "one.png")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("dog", "owl"), [1, 2]),
        (("n01", "n03"), [2, 0]),
        (("0", "2"), [0, 2]),
        (("00", "002"), [0, 2]),
        (("x", "y", "z"), [0, 1, 2]),
    ],
    ids=["labels", "label ids", "numbers", "padded numbers", "in order"],
)
def test_classes_of_sub_folders(tmp_path: Path, names: tuple[str, ...], expected: list[int]) -> None:
    images = folder(tmp_path, *(f"{name}/image.png" for name in names))
    assert class_indices(tmp_path, images, LABELS, IDS, 3) == expected


def test_only_the_folder_at_the_top_names_the_class(tmp_path: Path) -> None:
    images = folder(tmp_path, "dog/cat/1.png", "dog/2.png", "owl/3.png")
    assert class_indices(tmp_path, images, LABELS, None, 3) == [1, 1, 2]


def test_labels_come_before_numbers(tmp_path: Path) -> None:
    images = folder(tmp_path, "0/image.png", "1/image.png")
    assert class_indices(tmp_path, images, ["1", "0"], None, 2) == [1, 0]


def test_without_labels_numbers_and_order_remain(tmp_path: Path) -> None:
    images = folder(tmp_path, "a/1.png", "b/1.png")
    assert class_indices(tmp_path, images, None, None, 2) == [0, 1]
    with pytest.raises(ImageError, match="are no classes of this model"):
        class_indices(tmp_path, images, None, None, 3)


@pytest.mark.parametrize("names", [("dog", "bird"), ("0", "3"), ("dog", "n01"), ("²", "1")])
def test_other_names_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = folder(tmp_path, *(f"{name}/image.png" for name in names))
    with pytest.raises(ImageError, match=r"sub-folders of .* are no classes of this model: name them like its labels"):
        class_indices(tmp_path, images, LABELS, IDS, 3)


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    assert class_indices(tmp_path, folder(tmp_path, "1.png", "2.png"), LABELS, IDS, 3) is None
    assert class_indices(tmp_path, folder(tmp_path, "dog/3.png"), LABELS, IDS, 3) is None
