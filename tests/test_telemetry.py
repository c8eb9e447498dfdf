"""No dependency reports: nothing is written to the user's cache, and a forked child ends."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from artifacts import ROOT
from onnx import TensorProto, helper

import gtp_runtime

RUN = """
import os, sys, time
{first}
import numpy as np
from pathlib import Path
from types import SimpleNamespace
from gtp_runtime.backends import find_backend, make_options
path = Path("relu.onnx")
spec = find_backend(path)
tensors = [SimpleNamespace(name=name, shape=[1], dtype="float32") for name in "xy"]
entry = SimpleNamespace(inputs=tensors[:1], outputs=tensors[1:], batch=None)
backend = spec.open(path, entry, make_options(spec, {{"threads": 1}}))
backend.run({{"x": np.ones(1, np.float32)}})
time.sleep(0.5)
child = os.fork()
if not child:
    sys.exit(7)
for _ in range(100):
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        print(os.waitstatus_to_exitcode(status), os.environ.get("ORT_DISABLE_TELEMETRY"))
        sys.exit()
    time.sleep(0.1)
os.kill(child, 9)
print("hangs")
"""


def run(folder: Path, first: str, **environment: str) -> tuple[str, list[Path]]:
    """Run a graph in a process whose home is empty; return what it printed and the files that it left there."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "relu.onnx")
    home = folder / "home"
    home.mkdir()
    cleared = {"CI", "XDG_CACHE_HOME", *gtp_runtime.TELEMETRY_OFF, gtp_runtime.TELEMETRY_SWITCH}
    kept = {name: value for name, value in os.environ.items() if name not in cleared}
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "exporters", "models", "runtime"))
    result = subprocess.run(
        [sys.executable, "-c", RUN.format(first=first)],
        cwd=folder,
        env=kept | {"HOME": str(home), "PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip(), [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("first", ["import gtp_runtime", "import gtp_export", "import gtp_exporters"])
def test_onnx_runtime_writes_nothing_and_a_forked_child_ends(tmp_path: Path, first: str) -> None:
    printed, files = run(tmp_path, first)
    assert printed == "7 1"
    assert files == []


@pytest.mark.parametrize("name", gtp_runtime.TELEMETRY_OFF)
def test_what_the_user_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "user")
    gtp_runtime.switch_telemetry_off()
    assert os.environ[name] == "user"


def test_the_switch_leaves_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in gtp_runtime.TELEMETRY_OFF:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(gtp_runtime.TELEMETRY_SWITCH, "1")
    gtp_runtime.switch_telemetry_off()
    assert not gtp_runtime.TELEMETRY_OFF.keys() & os.environ.keys()
