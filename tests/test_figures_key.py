"""Figures that are kept are never used for another question."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from artifacts import DIGITS, SEVEN

from gtp_exporters.measuring import store as module
from gtp_exporters.measuring.store import figures_key
from gtp_models import load_recipe
from gtp_runtime import cpus, find_image_set, machine, read_manifest
from gtp_runtime.images.folders import ImageSet, image_names
from gtp_runtime.machine import describe_machine


@pytest.fixture
def asked(digits: Path, tmp_path: Path) -> dict[str, Any]:
    """The arguments of a key."""
    manifest = read_manifest(digits)
    shutil.copytree(DIGITS / "images" / "7", tmp_path / "images" / "7")
    shutil.copytree(DIGITS / "images" / "3", tmp_path / "calibration" / "3")
    images = find_image_set(tmp_path / "images", manifest)
    given = {"recipe": load_recipe("digits"), "manifest": manifest, "images": images, "device": {"board": "one"}}
    return given | {"calibration": tmp_path / "calibration"}


def recipe(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda asked: replace(asked["recipe"], **values)


def manifest_with(part: str, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda asked: replace(asked["manifest"], **{part: replace(getattr(asked["manifest"], part), **values)})


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "model": ("recipe", recipe(model_args={"num_heads": 4})),
    "settings": ("recipe", recipe(gtp={"preset": "measured", "num_prop": 7})),
    "weights": ("manifest", manifest_with("weights", sha256="0" * 64)),
    "preprocessing": ("manifest", manifest_with("preprocessing", interpolation="bilinear")),
    "image size": ("manifest", manifest_with("preprocessing", crop=[48, 48])),
    "images": ("images", lambda asked: asked["images"].spread(3)),
    "calibration images": ("calibration", lambda asked: None),
    "device": ("device", lambda asked: {"board": "two"}),
}


@pytest.mark.parametrize("part", CHANGES)
def test_each_part_counts(asked: dict[str, Any], part: str) -> None:
    argument, change = CHANGES[part]
    before, after = figures_key(**asked), figures_key(**asked | {argument: change(asked)})
    differ = {name for name in before if before[name] != after[name]}
    assert part in differ and differ <= {part, "preprocessing"}
    assert json.loads(json.dumps(before)) == before


@pytest.mark.parametrize(("part", "folder"), [("images", "images"), ("calibration images", "calibration")])
def test_an_image_that_was_replaced_is_another(asked: dict[str, Any], part: str, folder: str, tmp_path: Path) -> None:
    before = figures_key(**asked)
    path = next((tmp_path / folder).rglob("*.png"))
    path.write_bytes(SEVEN.read_bytes())
    os.utime(path, ns=(1, 1))
    after = figures_key(**asked)
    assert {name for name in before if before[name] != after[name]} == {part}
    Path(asked["images"].path(1)).unlink()
    assert len(asked["images"].stamp()) == 64, "one that is gone is counted as unreadable later"


def test_versions_and_code_count(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = figures_key(**asked)
    monkeypatch.setattr(module, "tool_versions", lambda: {"torch": "3"})
    monkeypatch.setattr(module, "code_digests", lambda: {"gtp_runtime": "another"})
    after = figures_key(**asked | {"calibration": Path("nowhere")})
    assert {name for name in before if before[name] != after[name]} == {"versions", "code", "calibration images"}


def test_a_date_in_a_recipe_is_no_reason_to_fail(asked: dict[str, Any]) -> None:
    dated = replace(asked["recipe"], gtp={"preset": "measured", "alpha": date(2020, 1, 1)})
    assert figures_key(**asked | {"recipe": dated})["settings"]["alpha"] == "2020-01-01"


def test_a_stamp_is_of_names_sizes_and_times() -> None:
    images = ImageSet(DIGITS / "images", image_names(DIGITS / "images"))
    assert images.stamp() == images.stamp() != images.spread(5).stamp()


def test_a_machine_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BOARD", tmp_path / "board")
    monkeypatch.setattr(cpus, "LISTED", tmp_path / "cpus")
    (tmp_path / "board").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    (tmp_path / "cpus").write_text(
        "processor\t: 0\nmodel name\t: A CPU\n\nprocessor : 1\nmodel name : A CPU\n", "utf-8"
    )
    found = describe_machine(["onnxruntime", "nosuch"])
    assert (found["board"], found["processor"], "openvino" in found) == ("NVIDIA Jetson Orin Nano", "A CPU", False)
    assert found["onnxruntime"] and found["cpus"] == str(os.cpu_count())
    (tmp_path / "cpus").unlink()
    assert describe_machine([])["processor"] == ""
