"""A parity pack that is empty, malformed or of another export proves nothing and says why."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gtp_runtime
from gtp_runtime import read_manifest
from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import file_sha256, write_manifest
from gtp_runtime.reference import Reference, read_reference, write_reference

TWO = np.zeros((2, 3), np.float32)
GOOD = Reference(
    images=np.zeros((2, 8, 8, 3), np.uint8),
    outputs={"logits": TWO},
    dense_outputs={"logits": TWO},
    labels=np.array([0, 2]),
    kept=[np.array([[0, 1, 2], [1, 2, 3]]), np.array([[0, 1, 2], [1, 2, -1]])],
    propagated=[np.array([[3], [0]]), np.zeros((2, 0), int)],
    gap=[np.array([0.5, 0.2]), np.full(2, np.inf)],
)
BAD: dict[str, dict[str, Any]] = {
    "images": {"images": np.zeros((2, 8, 8), np.uint8)},
    "(N, H, W, 3) uint8": {"images": np.zeros((2, 8, 8, 3), np.float32)},
    "with N > 0": {"images": np.zeros((0, 8, 8, 3), np.uint8)},
    "logits are (3, 3)": {"outputs": {"logits": np.zeros((3, 3), np.float32)}},
    "logits are (2, 0)": {"outputs": {"logits": np.zeros((2, 0), np.float32)}},
    "logits are (2,)": {"outputs": {"logits": np.zeros(2, np.float32)}},
    "must be finite floats": {"outputs": {"logits": np.array([[0, 1, np.nan]] * 2, np.float32)}},
    "logits are int64": {"outputs": {"logits": np.zeros((2, 3), int)}},
    "dense_logits are (2, 4)": {"dense_outputs": {"logits": np.zeros((2, 4), np.float32)}},
    "dense_logits are float32 and must be finite": {"dense_outputs": {"logits": np.full((2, 3), np.inf, np.float32)}},
    "labels are (3,)": {"labels": np.zeros(3, int)},
    "labels are (2,) float64": {"labels": np.zeros(2)},
    "labels run from 0 to 3, but there are 3": {"labels": np.array([0, 3])},
    "labels run from -1": {"labels": np.array([0, -1])},
    "layer0/gap is (3,)": {"gap": [np.zeros(3), GOOD.gap[1]]},
    "layer1/gap is (2,) float64, not (2,) floats": {"gap": [GOOD.gap[0], np.full(2, np.nan)]},
    "layer0/kept is (3, 3)": {"kept": [np.zeros((3, 3), int), GOOD.kept[1]]},
    "layer1/kept is (2, 3) float64": {"kept": [GOOD.kept[0], np.zeros((2, 3))]},
    "layer0/propagated is (2,)": {"propagated": [np.zeros(2, int), GOOD.propagated[1]]},
    "layer0/propagated has ids 0 to 4, but there are 4": {"propagated": [np.array([[0], [4]]), GOOD.propagated[1]]},
    "layer0/propagated has ids -2": {"propagated": [np.array([[0], [-2]]), GOOD.propagated[1]]},
}


def test_a_pack_comes_back_as_it_was(tmp_path: Path) -> None:
    write_reference(GOOD, tmp_path / "pack.npz")
    found = read_reference(tmp_path / "pack.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["pack.npz"]
    for name, value in vars(GOOD).items():
        np.testing.assert_equal(getattr(found, name), value)


@pytest.mark.parametrize("message", BAD)
def test_arrays_must_fit(tmp_path: Path, message: str) -> None:
    write_reference(replace(GOOD, **BAD[message]), tmp_path / "pack.npz")
    with pytest.raises(ManifestError) as refused:
        read_reference(tmp_path / "pack.npz")
    text = str(refused.value)
    assert message in text
    assert text.startswith(f"the parity pack {tmp_path / 'pack.npz'} cannot be used (")
    assert text.endswith("): export again")


def write_plain(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, TWO)


def write_pickle(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, images=np.array([{}], object))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no pack", encoding="utf-8"),
    "a zip cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a zip with other bytes": lambda path: path.write_bytes(
        path.read_bytes()[:80].ljust(200) + path.read_bytes()[200:]
    ),
    "one array": write_plain,
    "pickled": write_pickle,
    "nothing": np.savez,
    "no answers": lambda path: np.savez(path, images=GOOD.images),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_pack_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "pack.npz"
    write_reference(GOOD, path)
    DAMAGE[damage](path)
    with pytest.raises(ManifestError, match=r"pack\.npz .*: export again"):
        read_reference(path)
    path.unlink()
    with pytest.raises(ManifestError):
        read_reference(path)


def with_pack(directory: Path, change: Callable[[Reference], Reference]) -> Path:
    """Change the parity pack, with a hash that fits."""
    path = directory / "reference.npz"
    write_reference(change(read_reference(path)), path)
    manifest = read_manifest(directory)
    entry = replace(manifest.entry(path.name), sha256=file_sha256(path), size=path.stat().st_size)
    write_manifest(replace(manifest, files=manifest.files | {path.name: entry}), directory)
    return directory


CHANGES: dict[str, tuple[Callable[[Reference], Reference], str]] = {
    "image size": (
        lambda pack: replace(pack, images=pack.images[:, 1:]),
        r"image size \[31, 32\], but the manifest \[32, 32",
    ),
    "output": (
        lambda pack: replace(pack, outputs={"features": pack.answers}, dense_outputs=None),
        r"outputs .*features.*, but the manifest .*logits",
    ),
    "classes": (
        lambda pack: replace(pack, outputs={"logits": np.pad(pack.answers, ((0, 0), (0, 1)))}, dense_outputs=None),
        r"outputs .*11.*, but the manifest .*10",
    ),
    "fewer layers": (lambda pack: replace(pack, gap=pack.gap[:-1]), r"removed tokens by layer .*, but the manifest"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_pack_of_another_export_is_refused(digits_copy: Path, change: str) -> None:
    with_pack(digits_copy, CHANGES[change][0])
    with gtp_runtime.load(digits_copy) as loaded, pytest.raises(ManifestError, match=CHANGES[change][1]):
        loaded.validate()


def test_a_dense_file_needs_answers_of_its_own(digits_copy: Path) -> None:
    with_pack(digits_copy, lambda pack: replace(pack, dense_outputs=None))
    with gtp_runtime.load(digits_copy / "dense.onnx") as dense, pytest.raises(ManifestError):
        dense.validate()


def test_altered_kept_sets_fail(digits_copy: Path) -> None:
    def swapped(pack: Reference) -> Reference:
        ids, stays = pack.propagated[0].copy(), pack.kept[-1][:, 0]
        ids[:, 0] = stays
        return replace(pack, propagated=[ids, *pack.propagated[1:]])

    with_pack(digits_copy, swapped)
    with gtp_runtime.load(digits_copy) as loaded:
        parity = loaded.validate()
        assert loaded.validate(min_kept=0).ok, "one token of an image is no more than a near-tie"
    assert parity.kept_agreement == 0
    assert parity.problems == ["kept sets agree on 0.0% of the images, limit 75%"]
