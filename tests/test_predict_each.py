"""Predictions of many images: folders, bytes, open files, frames of cameras, and images that cannot be read."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from artifacts import ONE_OF_EACH, SEVEN, Command
from PIL import Image

from gtp_runtime import Model, from_bgr, from_nv12
from gtp_runtime.errors import ImageError, InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    place.mkdir()
    for digit, image in enumerate(ONE_OF_EACH):
        shutil.copy(image, place / f"{digit}.png")
    (place / "4b.png").write_bytes(b"no image")
    return place


def test_one_bad_image_does_not_lose_the_others(model: Model, folder: Path) -> None:
    found = list(model.predict_each(sorted(folder.iterdir()), topk=1, workers=2))
    assert [image.name for image, _ in found] == sorted(path.name for path in folder.iterdir())  # type: ignore[union-attr]
    assert [answer[0].label for _, answer in found if not isinstance(answer, ImageError)] == list("0123456789")
    assert isinstance(found[5][1], ImageError) and "4b.png" in str(found[5][1])
    with pytest.raises(ImageError, match=r"4b\.png"):
        model.predict(sorted(folder.iterdir()))
    assert [answer for _, answer in model.predict_each([b"", b""])] != []


@pytest.mark.filterwarnings("default::gtp_runtime.errors.RandomWeightsWarning")
def test_batches_are_filled_in_order(batched: Model) -> None:
    found = [answer for _, answer in batched.predict_each([*ONE_OF_EACH, "none.png"], allow_random=True)]
    expected = batched.predict(ONE_OF_EACH, allow_random=True)
    assert [[entry.index for entry in answer] for answer in found[:-1] if not isinstance(answer, ImageError)] == [
        [entry.index for entry in answer] for answer in expected
    ]
    assert str(found[-1]) == "no image none.png"


def test_what_is_wrong_is_said_before_the_first_image(model: Model) -> None:
    with pytest.raises(InputError, match="topk=0"):
        model.predict_each([SEVEN], topk=0)
    with pytest.raises(InputError, match="workers=0"):
        model.predict_each([SEVEN], workers=0)


def test_bytes_and_open_files(model: Model) -> None:
    expected, content = model.predict(SEVEN), SEVEN.read_bytes()
    for image in (content, bytearray(content), memoryview(content), io.BytesIO(content)):
        assert model.predict(image) == expected
    with SEVEN.open("rb") as file:
        file.read(10)
        assert model.predict(file) == expected, "it is read from its start"
        assert not file.closed
        assert model.predict([file, content]) == [expected] * 2
    with pytest.raises(ImageError, match="3 bytes"):
        model.predict(b"abc")
    with SEVEN.open(encoding="latin-1") as text, pytest.raises(ImageError, match=r"000\.png .*text"):
        model.predict(text)  # type: ignore[arg-type]


def test_bgr_frames(model: Model) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(from_bgr(rgb[..., ::-1]), rgb)
    assert np.array_equal(from_bgr(np.dstack([rgb[..., ::-1], rgb[..., 0]])), rgb)
    assert model.predict(from_bgr(rgb[..., ::-1])) == model.predict(rgb)
    for other in (rgb[..., 0], rgb.astype(np.float32), rgb[:0]):
        with pytest.raises(ImageError, match=r"BGR .*\(H, W, 3\)"):
            from_bgr(other)


def nv12(luma: np.ndarray, colour: np.ndarray, padding: int = 0) -> np.ndarray:
    """A frame of (H, W) luma and (H / 2, W / 2, 2) colour, with rows that are longer than the picture."""
    rows = np.concatenate([luma, colour.reshape(len(colour), -1)])
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=77)


def test_every_value_of_nv12_is_as_pillow_says() -> None:
    """Full range BT.601 is the YCbCr of JPEG, and of Pillow."""
    rng = np.random.default_rng(0)
    luma = rng.integers(0, 256, (256, 256), dtype=np.uint8)
    values = np.stack(np.meshgrid(np.arange(0, 256, 2), np.arange(1, 257, 2)), -1).astype(np.uint8)
    full = np.dstack([luma, values.repeat(2, 0).repeat(2, 1)])
    expected = np.asarray(Image.frombytes("YCbCr", (256, 256), full.tobytes()).convert("RGB"))
    found = from_nv12(nv12(luma, values), full_range=True)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.array_equal(from_nv12(nv12(luma, values, padding=64), 256, full_range=True), found)


@pytest.mark.parametrize(("matrix", "red"), [("bt601", (81, 90, 240)), ("bt709", (63, 102, 240))])
def test_video_range(matrix: str, red: tuple[int, int, int]) -> None:
    def colour(luma: int, u: int, v: int) -> list[int]:
        frame = nv12(np.full((2, 2), luma, np.uint8), np.array([[[u, v]]], np.uint8))
        return from_nv12(frame, matrix=matrix)[0, 0].tolist()  # type: ignore[arg-type]

    assert (colour(16, 128, 128), colour(235, 128, 128)) == ([0] * 3, [255] * 3)
    assert np.abs(np.array(colour(*red)) - [255, 0, 0]).max() <= 1
    assert colour(0, 128, 128) == [0] * 3, "blacker than black"


def test_frames_that_are_none() -> None:
    frame = np.zeros((6, 8), np.uint8)
    assert from_nv12(frame).shape == (4, 8, 3)
    for other in (frame[:5], frame.astype(np.int32), frame[None], frame[:0]):
        with pytest.raises(ImageError, match=r"NV12 .*\(H \* 3 / 2, W\)"):
            from_nv12(other)
    with pytest.raises(ImageError, match="8 values, .*width=10"):
        from_nv12(frame, 10)
    with pytest.raises(InputError, match="width=3: .*even"):
        from_nv12(frame, 3)
    with pytest.raises(InputError, match="matrix='bt2020'.*bt601, bt709"):
        from_nv12(frame, matrix="bt2020")  # type: ignore[arg-type]


def test_predict_takes_folders_and_writes_json_lines(command: Command, digits: Path, folder: Path) -> None:
    ran = command("predict", digits, folder, SEVEN, "--json-lines", "--topk", "1")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 1
    assert [line["predictions"][0]["label"] for line in lines if "error" not in line] == [*"0123456789", "7"]
    assert [Path(line["image"]).name for line in lines if "error" in line] == ["4b.png"]
    assert Path(lines[-1]["image"]) == SEVEN
    assert {(line["file"], line["backend"]) for line in lines} == {(str(digits / "model.onnx"), "onnxruntime")}
    (folder / "4b.png").unlink()
    ran = command("predict", digits, folder)
    assert (ran.code, len(ran.err.splitlines())) == (0, 1)
    assert "model.onnx" in ran.err, "which file answered"
    assert ran.out.count(str(folder)) == 10


def test_predict_says_which_images_are_bad(command: Command, digits: Path, folder: Path) -> None:
    ran = command("predict", digits, "none.png", folder, "--json")
    found = json.loads(ran.out)["images"]
    assert (ran.code, len(found), found[0]["error"]) == (1, 12, "no image none.png")
    assert ran.err.splitlines()[-1] == "error: 2 of 12 images cannot be read"
    ran = command("predict", digits, SEVEN, "--json", "--json-lines")
    assert ran.code == 2 and "--json-lines" in ran.error
    (folder / "empty").mkdir()
    ran = command("predict", digits, folder / "empty")
    assert ran.code == 1 and "empty" in ran.error
