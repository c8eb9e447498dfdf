"""examples/cpp: an application in C++ proves, times and runs an export, and prepares images as the runtime does."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from artifacts import ONE_OF_EACH
from PIL import Image

import gtp_runtime
from gtp_runtime import read_manifest
from gtp_runtime.extras import is_installed
from gtp_runtime.manifest import write_manifest
from gtp_runtime.precisions import PRECISIONS

SOURCE = Path(__file__).parents[1] / "examples" / "cpp"
HEADERS = {"PNG": "png.h", "JPEG": "jpeglib.h", "zlib": "zlib.h", "OpenSSL": "openssl/evp.h"}
TOOLS = ("cmake", "g++")

pytestmark = pytest.mark.full


def package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def include(name: str) -> list[Path]:
    """Where a header is: a folder that the environment names, one of this Python's, or the system's."""
    folders = [
        os.environ.get("CPP_INCLUDE", ""),
        *(f"{path}/nlohmann_json/include" for path in sys.path),
        "/usr/include",
    ]
    return [Path(folder) for folder in folders if folder and (Path(folder) / name).is_file()]


def missing() -> list[str]:
    tools = [tool for tool in TOOLS if shutil.which(tool) is None]
    headers = [name for name, header in HEADERS.items() if not include(header)]
    json_headers = [] if include("nlohmann/json.hpp") else ["nlohmann_json"]
    return [*tools, *headers, *json_headers, *([] if is_installed("openvino") else ["openvino"])]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built with OpenVINO's wheel, and with ONNX Runtime's where its headers are at hand."""
    if lacking := missing():
        pytest.skip(f"not installed here: {', '.join(lacking)}")
    place = tmp_path_factory.mktemp("cpp")
    settings = [f"-DOpenVINO_DIR={package('openvino') / 'cmake'}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"]
    settings += [f"-DJSON_INCLUDE={include('nlohmann/json.hpp')[0]}"]
    if headers := include("onnxruntime_cxx_api.h"):
        settings += [f"-DONNXRUNTIME_ROOT={package('onnxruntime')}", f"-DONNXRUNTIME_INCLUDE={headers[0]}"]
    for step in (["-S", SOURCE, "-B", place, *settings], ["--build", place, "--parallel", "2"]):
        done = subprocess.run(["cmake", *map(str, step)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return place / "gtp-embed"


def run(program: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, check=False)


def document(program: Path, *arguments: object) -> dict[str, object]:
    ran = run(program, *arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_it_proves_parity_as_the_runtime_does(program: Path, digits: Path) -> None:
    with gtp_runtime.load(digits, "openvino", threads=1) as model:
        expected = model.validate().to_dict()
    names = ["onnxruntime", "openvino"] if include("onnxruntime_cxx_api.h") else ["openvino"]
    for name in names:
        parity = document(program, "validate", digits, "--engine", name)
        assert str(parity["engine"]).startswith(name)
        for key in ("ok", "images", "top1_agreement", "kept_agreement", "receiver_agreement", "top1", "dense_top1"):
            assert parity[key] == pytest.approx(expected[key]), key
        assert parity["cosine"] == pytest.approx(expected["cosine"], abs=1e-5)
        assert float(str(parity["max_abs_fraction_all"])) < 1e-5


def test_a_file_of_other_answers_fails_its_gates(program: Path, digits_copy: Path) -> None:
    """The dense graph in the place of the reduced one, listed as such: its answers are of another model."""
    manifest = read_manifest(digits_copy)
    shutil.copy(digits_copy / "dense.onnx", digits_copy / "model.onnx")
    dense = manifest.entry("dense.onnx")
    changed = replace(manifest.entry("model.onnx"), sha256=dense.sha256, size=dense.size)
    write_manifest(replace(manifest, files=manifest.files | {"model.onnx": changed}), digits_copy)
    assert run(program, "validate", digits_copy).returncode in (1, 3)


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz"])
def test_a_changed_file_is_refused(program: Path, digits_copy: Path, name: str) -> None:
    content = bytearray((digits_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (digits_copy / name).write_bytes(content)
    ran = run(program, "validate", digits_copy)
    assert ran.returncode == 1 and name in ran.stderr and len(ran.stderr.splitlines()) == 1


def test_it_times_dense_and_reduced_in_turn(program: Path, digits: Path) -> None:
    files = document(program, "bench", digits, "--seconds", 0)["files"]
    assert isinstance(files, list)
    assert [file["file"] for file in files] == ["dense.onnx", "model.onnx"]
    assert files[0]["ratio"] == 1 and files[0]["runs"] == files[1]["runs"] >= 10
    macs = [read_manifest(digits).entry(name).macs for name in ("dense.onnx", "model.onnx")]
    assert files[1]["macs_ratio"] == pytest.approx(macs[1] / macs[0])


def test_it_gives_the_classes_of_the_runtime(program: Path, digits: Path) -> None:
    with gtp_runtime.load(digits, threads=1) as model:
        for path in ONE_OF_EACH:
            expected = model.predict(path, topk=3)
            answers = document(program, "predict", digits, path, "--topk", 3)["predictions"]
            assert isinstance(answers, list)
            assert [answer["label"] for answer in answers] == [answer.label for answer in expected]
            shares = [answer["probability"] for answer in answers]
            np.testing.assert_allclose(shares, [answer.probability for answer in expected], atol=1e-5)


SIZES = [(7, 9), (64, 48), (333, 211), (640, 480), (1200, 60)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "box", "hamming", "nearest"])
@pytest.mark.parametrize("mode", ["shortest", "cover", "contain", "squash"])
def test_pixels_are_pillows(program: Path, digits_copy: Path, tmp_path: Path, interpolation: str, mode: str) -> None:
    compare_pixels(program, digits_copy, tmp_path, {"interpolation": interpolation, "resize_mode": mode}, 0)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_without_antialiasing(program: Path, digits_copy: Path, tmp_path: Path, interpolation: str) -> None:
    compare_pixels(program, digits_copy, tmp_path, {"interpolation": interpolation, "antialias": False}, 1)


def compare_pixels(program: Path, directory: Path, place: Path, settings: dict[str, object], bound: int) -> None:
    """Images of noise, smaller and larger than the crop: no level differs by more than ``bound`` of 255."""
    manifest = read_manifest(directory)
    chosen = replace(manifest.preprocessing, resize=[40, 56], crop=[32, 48], **settings)
    write_manifest(replace(manifest, preprocessing=chosen), directory)
    for seed, (width, height) in enumerate(SIZES):
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / "noise.png")
        ran = run(program, "pixels", directory, place / "noise.png", place / "out.ppm")
        assert ran.returncode == 0, ran.stderr
        levels = np.asarray(Image.open(place / "out.ppm"), np.int16)
        assert np.abs(levels - chosen.pixels(noise).astype(np.int16)).max() <= bound, (width, height)


@pytest.mark.parametrize("kind", ["L", "LA", "RGBA", "I;16", "P", "JPEG"])
def test_every_kind_of_image_is_decoded_as_the_runtime_does(
    program: Path, digits: Path, tmp_path: Path, kind: str
) -> None:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    path = tmp_path / ("image.jpg" if kind == "JPEG" else "image.png")
    if kind == "I;16":
        Image.fromarray(rng.integers(0, 65536, (40, 50)).astype(np.uint16)).save(path)
    else:
        (colour if kind == "JPEG" else colour.convert(kind)).save(path)
    ran = run(program, "pixels", digits, path, tmp_path / "out.ppm")
    assert ran.returncode == 0, ran.stderr
    expected = read_manifest(digits).preprocessing.pixels(path).astype(np.int16)
    levels = np.asarray(Image.open(tmp_path / "out.ppm"), np.int16)
    assert np.abs(levels - expected).max() <= (2 if kind == "JPEG" else 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--help"], 0),
        (["validate"], 2),
        (["validate", "nowhere"], 1),
        (["validate", "DIR", "--threads", "x"], 2),
        (["validate", "DIR", "--engine", "tensorrt"], 4),
        (["validate", "DIR", "--file", "reference.npz"], 2),
        (["predict", "DIR", "nothing.png"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input(program: Path, digits: Path, arguments: list[str], code: int) -> None:
    ran = run(program, *(digits if word == "DIR" else word for word in arguments))
    assert ran.returncode == code
    assert len(ran.stderr.splitlines()) == (code > 0)


def test_its_limits_are_those_of_the_runtime() -> None:
    text = (SOURCE / "src" / "parity.h").read_text("utf-8")
    rows = re.findall(r'\{"(\w+)", \{([^}]*)\}\}', text)
    assert {name for name, _ in rows} == set(PRECISIONS)
    for name, numbers in rows:
        limits = PRECISIONS[name].parity
        expected = (limits.error, limits.kept, limits.overlap, limits.cosine, limits.kl, limits.top1)
        assert sorted(map(float, numbers.split(","))) == sorted(expected), name
