"""Image folders: which files are images, and which class a sub-folder names."""

from pathlib import Path

import pytest

from gtp_runtime import find_image_set, read_manifest
from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.images.folders import find_images
from gtp_runtime.images.labels import class_indices

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


def test_hidden_files_and_folders_are_no_images(tmp_path: Path) -> None:
    (tmp_path / ".home").mkdir()
    found = folder(tmp_path / ".home", "._x.jpg", "x.jpg", "a/._y.png", "a/y.png", ".thumbnails/x.jpg", ".jpg")
    assert [str(path.relative_to(tmp_path / ".home")) for path in found] == ["a/y.png", "x.jpg"]


def test_a_folder_is_a_path(tmp_path: Path) -> None:
    folder(tmp_path, "1.png")
    assert find_images(str(tmp_path)) == [tmp_path / "1.png"]
    for other in (None, 3, b"images"):
        with pytest.raises(InputError, match="folder as a path"):
            find_images(other)  # type: ignore[arg-type]


def test_no_folder_or_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no folder .*missing"):
        find_images(tmp_path / "missing")
    with pytest.raises(ImageError, match=r"no image .*\.bmp, "):
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
    ],
    ids=["labels", "label ids", "numbers", "padded numbers"],
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


def test_order_must_be_asked_for(tmp_path: Path) -> None:
    images = folder(tmp_path, "b/1.png", "a/1.png", "c/1.png", "b/2.png")
    with pytest.raises(ImageError, match=r"\(a, b, c\) .*\(cat, dog, owl\).*--by-order"):
        class_indices(tmp_path, images, LABELS, None, 3)
    assert class_indices(tmp_path, images, LABELS, None, 3, by_order=True) == [0, 1, 1, 2]
    with pytest.raises(ImageError, match="not classes") as refused:
        class_indices(tmp_path, images, None, None, 4)
    assert "by-order" not in str(refused.value), "three folders are not four classes in any order"


def test_order_needs_a_folder_a_class_and_other_names(tmp_path: Path) -> None:
    images = folder(tmp_path, "cat/1.png", "dog/1.png", "owl/1.png")
    with pytest.raises(ImageError, match="omit --by-order"):
        class_indices(tmp_path, images, LABELS, None, 3, by_order=True)
    with pytest.raises(ImageError, match=r" 3, .* 4 classes"):
        class_indices(tmp_path, images, None, None, 4, by_order=True)


def test_a_name_of_two_classes_is_refused_where_a_folder_has_it(tmp_path: Path) -> None:
    labels, ids = ["crane", "dog", "crane"], ["n1", "n2", "n3"]
    assert class_indices(tmp_path, folder(tmp_path, "dog/1.png"), labels, ids, 3) == [1]
    images = folder(tmp_path, "crane/1.png", "dog/2.png")
    with pytest.raises(ImageError, match=r"'crane' .* 0, 2: .* label ids \(n1, n3\) or class numbers"):
        class_indices(tmp_path, images, labels, ids, 3)
    with pytest.raises(ImageError, match=r"by class numbers"):
        class_indices(tmp_path, images, labels, None, 3)


def test_orders_of_timm_and_torchvision(tmp_path: Path, tiny: Path) -> None:
    folder(tmp_path, *(f"{name}/1.png" for name in ("0", "1", "2", "10", "11")))
    manifest = read_manifest(tiny)
    orders = {}
    for order in ("timm", "torchvision"):
        images = find_image_set(tmp_path, manifest, by_order=order)
        assert images.by_order is not None
        orders[order] = list(images.by_order)
        assert images.classes is not None and images.classes[3] == images.by_order["11"]
    assert orders == {"timm": ["0", "1", "2", "10", "11"], "torchvision": ["0", "1", "10", "11", "2"]}


def test_classes_may_be_leaves(tmp_path: Path, tiny: Path) -> None:
    folder(tmp_path, *(f"{name}/1.png" for name in ("a/x2", "a/x10", "b/y", "b/z", "w")))
    images = find_image_set(tmp_path, read_manifest(tiny), by_order="timm")
    assert images.by_order == {"w": 0, "x2": 1, "x10": 2, "y": 3, "z": 4}
    with pytest.raises(ImageError, match="3"):
        find_image_set(tmp_path, read_manifest(tiny), by_order="torchvision")


def test_many_names_are_not_all_listed(tmp_path: Path) -> None:
    images = folder(tmp_path, *(f"{letter}/1.png" for letter in "abcdefghijkl"))
    with pytest.raises(ImageError, match=r"\(a, b, c, d, e, f, g, h, i, j, \.\.\.\) are not classes"):
        class_indices(tmp_path, images, None, None, 3)


@pytest.mark.parametrize("names", [("dog", "bird"), ("0", "3"), ("dog", "n01"), ("²", "1")])
def test_other_names_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = folder(tmp_path, *(f"{name}/image.png" for name in names))
    with pytest.raises(ImageError, match=r"not classes .*label"):
        class_indices(tmp_path, images, LABELS, IDS, 3)


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    assert class_indices(tmp_path, folder(tmp_path, "1.png", "2.png"), LABELS, IDS, 3) is None
    assert class_indices(tmp_path, folder(tmp_path, "dog/3.png"), LABELS, IDS, 3) is None
