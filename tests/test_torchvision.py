import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gtp_models import _torchvision

ROOT = Path(__file__).parents[1]
PARTS = (".", "exporters", "runtime", "models")


def python(code: str, folder: Path) -> str:
    paths = os.pathsep.join(str(ROOT / part) for part in PARTS)
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_timm_can_be_imported_after_gtp_models(tmp_path: Path) -> None:
    code = "import gtp_models, timm, torch, torchvision; print(torch.ops.torchvision.nms, torch.ops.torchvision.qnms)"
    assert python(code, tmp_path).count("torchvision.") == 2


def test_importing_gtp_models_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, gtp_models; print({'torch', 'torchvision', 'timm'} & sys.modules.keys())"
    assert python(code, tmp_path) == "set()\n"


def finders() -> int:
    return sum(isinstance(finder, _torchvision._TorchvisionFinder) for finder in sys.meta_path)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (("2.13.0+cpu", "0.28.0+cu130"), 1),
        (("2.13.0+cpu", "0.27.0+cpu"), 1),
        (("2.13.0", "0.28.0+cpu"), 1),
        (("2.14.0a0+git1234", "0.28.0"), 1),
        (("2.13.0+cpu", "0.28.0+cpu"), 0),
        (("2.10.0", "0.25.1"), 0),
        ((None, "0.28.0+cpu"), 0),
        (("2.13.0+cpu", None), 0),
    ],
)
def test_imports_are_hooked_only_where_the_builds_differ(
    monkeypatch: pytest.MonkeyPatch, versions: tuple[str | None, str | None], expected: int
) -> None:
    others = [finder for finder in sys.meta_path if not isinstance(finder, _torchvision._TorchvisionFinder)]
    monkeypatch.setattr(sys, "meta_path", others)
    monkeypatch.setattr(_torchvision, "_version", dict(zip(("torch", "torchvision"), versions, strict=True)).get)
    for _ in range(3):
        _torchvision.install()
    assert finders() == expected


def test_versions_are_read_without_an_import(tmp_path: Path) -> None:
    code = "import sys; from gtp_models._torchvision import _version; print(_version('torch'), 'torch' in sys.modules)"
    version, loaded = python(code, tmp_path).split()
    assert (version, loaded) == (torch.__version__, "False")


def test_declaring_twice_is_harmless() -> None:
    _torchvision.declare_operators()
    _torchvision.declare_operators()
