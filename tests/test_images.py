"""Image folders: which files are images."""

from pathlib import Path

import pytest

from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.images.folders import find_images


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
        with pytest.raises(InputError):
            find_images(other)  # type: ignore[arg-type]


def test_no_folder_or_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="missing"):
        find_images(tmp_path / "missing")
    with pytest.raises(ImageError, match=r"no image .*\.bmp, "):
        find_images(tmp_path)
    (tmp_path / "one.png").touch()
    with pytest.raises(ImageError):
        find_images(tmp_path / "one.png")


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    folder(tmp_path / "elsewhere", "1.png", "deep/2.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "dog").mkdir()
    (tmp_path / "data" / "dog" / "again").symlink_to(tmp_path / "data")  # a circle
    (tmp_path / "data" / "dog" / "3.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "data" / "owl").symlink_to(tmp_path / "nowhere")
    found = [str(path.relative_to(tmp_path / "data")) for path in find_images(tmp_path / "data")]
    assert found == ["cat/1.png", "cat/deep/2.png", "dog/3.png"]
