"""Names of files that are no UTF-8, which Linux allows: everything works, and texts spell the bytes out."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from artifacts import DIGITS, ONE_OF_EACH, SEVEN, TINY, Command

import gtp_runtime
from gtp_exporters import ExportOptions, export
from gtp_models import load_recipe
from gtp_models.weights import build_model
from gtp_runtime.__main__ import main
from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.opening import named_in_utf8

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have names of characters alone")
ODD = os.fsdecode(b"mod\xe9le")  # Latin-1


@pytest.fixture
def odd(digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits, tmp_path / ODD))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_directory_runs(command: Command, odd: Path, backend: str) -> None:
    pytest.importorskip(backend)
    ran = command("validate", odd, "--backend", backend)
    assert ran.code == 0 and "mod\\udce9le" in ran.out
    predicted = json.loads(command("predict", odd, SEVEN, "--backend", backend, "--json").out)
    assert predicted["images"][0]["predictions"][0]["label"] == "7"


def test_the_runtime_alone_runs_it(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", str(odd)]) == 0
    assert main(["predict", str(odd), str(SEVEN), "--json"]) == 0
    assert '"label": "7"' in capsys.readouterr().out


def test_weights_beside_a_graph_are_found(odd: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    graph = onnx.load(odd / "model.onnx")
    whole = odd.with_name("whole")
    whole.mkdir()
    settings = {"save_as_external_data": True, "location": "data", "size_threshold": 1024}
    onnx.save(graph, str(whole / "model.onnx"), **settings)
    for name in ("model.onnx", "data"):
        shutil.copy(whole / name, odd)
    with named_in_utf8(odd / "model.onnx") as place:
        assert ort.InferenceSession(str(place), providers=["CPUExecutionProvider"]).get_inputs()[0].name == "images"
    assert not place.parent.exists(), "nothing stays open"


def test_an_export_takes_such_names_everywhere(tmp_path: Path) -> None:
    weights = shutil.copy(DIGITS / "weights.safetensors", tmp_path / f"{ODD}.safetensors")
    assert build_model(replace(load_recipe("digits"), weights=weights)).detail == "mod\\udce9le.safetensors"
    data = tmp_path / f"data{ODD}"
    for number in range(5):
        (data / f"{ODD}{number}").mkdir(parents=True)
        shutil.copy(ONE_OF_EACH[number], data / f"{ODD}{number}" / f"{ODD}.png")
    options = ExportOptions(data=data, dense=False, simplify=False)
    made = export(TINY, tmp_path / ODD, weights="random", options=options, report=False)
    assert made.proof is not None and made.manifest.reference["images"] == "from datamod\\udce9le"
    assert made.manifest.class_order == "timm"
    with pytest.warns(RandomWeightsWarning):
        model = gtp_runtime.load(tmp_path / ODD, threads=1)
    with model:
        (data / f"{ODD}0" / f"{ODD}broken.png").write_bytes(b"none")
        accuracy = gtp_runtime.evaluate(model, None, data)
        assert accuracy.unreadable == 1 and accuracy.class_folders == {f"mod\\udce9le{n}": n for n in range(5)}
        assert model.record("accuracy", accuracy.to_dict())
    assert "\\udce9" in str(gtp_runtime.read_manifest(tmp_path / ODD).results["accuracy"])
