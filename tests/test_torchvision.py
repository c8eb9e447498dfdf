import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_install_is_idempotent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for _ in range(3):
        _torchvision.install()
    assert sum(type(finder).__name__ == "_TorchvisionFinder" for finder in sys.meta_path) == 1


def test_declaring_twice_is_harmless() -> None:
    _torchvision.declare_operators()
    _torchvision.declare_operators()
