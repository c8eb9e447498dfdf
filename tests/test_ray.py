"""On a local cluster of Ray's: the same results as in one process, also when a node is killed midway."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from artifacts import DIGITS, ROOT, SEVEN
from test_tune import search_tiny, tiny_images

import gtp_runtime
from gtp_exporters.measuring.shards import Local
from gtp_runtime import Model

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
IMAGES = DIGITS / "images"
SECONDS = 170.0


def on_ray(place: Path, **scenario: Any) -> Any:
    """Run ``on_ray.py`` and return what it found; all of its processes end."""
    roots = [str(ROOT / name) for name in (".", "exporters", "runtime", "models")]
    own = {"PYTHONPATH": os.pathsep.join(roots), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).parent / "on_ray.py"), json.dumps(scenario)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env={**os.environ, **own}, cwd=place, start_new_session=True, **pipes)
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The images of digits, four times, and one that cannot be read."""
    for digit in range(10):
        for copy in range(4):
            for image in (IMAGES / str(digit)).iterdir():
                (tmp_path / "data" / str(digit)).mkdir(parents=True, exist_ok=True)
                shutil.copy(image, tmp_path / "data" / str(digit) / f"{copy}-{image.name}")
    (tmp_path / "data" / "3" / "broken.png").write_bytes(SEVEN.read_bytes()[:80])
    return tmp_path / "data"


def whole(model: Model, export: Path, folder: Path) -> dict[str, Any]:
    with gtp_runtime.load(export / "dense.onnx", threads=1) as dense:
        return gtp_runtime.evaluate(model, dense, folder).to_dict()


def test_a_cluster_gives_the_same_accuracy_and_times_files(model: Model, digits: Path, tmp_path: Path) -> None:
    scenarios = {"evaluate": {"export": str(digits), "data": str(IMAGES)}, "benchmark": {"export": str(digits)}}
    nodes = {"board": {"resources": {"gtp_device": 1}}}
    found = on_ray(tmp_path, nodes=nodes, scenarios=scenarios, images=str(IMAGES))
    assert found["evaluate"] == whole(model, digits, IMAGES)
    first, second = found["benchmark"]["latency"]
    assert (first["file"], second["file"], first["runs"]) == ("dense.onnx", "model.onnx", 3)
    assert found["report"]["timed"] == {"board": 2}


@pytest.mark.full
def test_a_node_that_is_killed_midway_changes_nothing(model: Model, digits: Path, folder: Path, tmp_path: Path) -> None:
    nodes: dict[str, Any] = {"head": {"num_cpus": 0}, "a": {}, "b": {}, "board": {"resources": {"gtp_device": 1}}}
    scenarios: dict[str, Any] = {
        "evaluate": {"export": str(digits), "data": str(folder)},
        "benchmark": {"export": str(digits)},
        "fail": {},
        "die": {},
    }
    found = on_ray(tmp_path, nodes=nodes, scenarios=scenarios, images=str(folder), kills="a")
    assert found["evaluate"] == whole(model, digits, folder)
    assert (found["evaluate"]["images"], found["evaluate"]["unreadable"]) == (1440, 1)
    assert found["benchmark"]["node"] == "board"
    assert found["fail"] == "invalid literal for int() with base 10: 'x'"
    assert found["die"].startswith("FleetError: ")
    report = found["report"]
    assert report["lost"][0] == "a"
    assert report["counts"]["b"] > report["counts"].get("a", 0)
    assert "board" not in report["counts"], "the device is kept for timing"


@pytest.mark.full
def test_a_search_finds_the_same_when_a_node_is_killed(tmp_path: Path) -> None:
    folder = tiny_images(tmp_path / "images")
    nodes: dict[str, Any] = {"head": {"num_cpus": 0}, "a": {}, "b": {}}
    scenarios = {"search": {"place": str(tmp_path / "spread"), "images": str(folder)}}
    found = on_ray(tmp_path, nodes=nodes, scenarios=scenarios, images=str(folder), kills="a")
    alone = Local()
    alone.trials = 2  # as many at a time as there were nodes
    search = search_tiny(tmp_path / "alone", folder, None, alone)
    assert found["search"] == json.loads(json.dumps([asdict(result) for result in search.results]))
    assert found["killed"] == ["a"], "it is not named as lost where the other one was done before Ray noticed"
    assert set(found["report"]["counts"]) >= {"b"}
