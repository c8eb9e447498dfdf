"""Exports that several test files use, and the command line as a function."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

import gtp_runtime
from gtp_export import cli as command_line
from gtp_export import console
from gtp_exporters import ExportOptions, export
from gtp_models import Recipe, load_recipe
from gtp_runtime import Model
from gtp_runtime.errors import RandomWeightsWarning

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "models" / "gtp_models" / "digits"
SEVEN = DIGITS / "images" / "7" / "000.png"
ONE_OF_EACH = [min((DIGITS / "images" / str(digit)).iterdir()) for digit in range(10)]
COMMANDS = list(command_line.ENTRIES)
ARGS = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
TINY = Recipe("tiny", "a tiny ViT", "vit_tiny_patch16_224", gtp={"num_prop": 3, "num_neighbours": 4}, model_args=ARGS)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model in the paper's form, exported once for all workers; ``digits_copy`` may be changed."""
    paper = load_recipe("digits").settings(preset="paper")
    return _once(tmp_path_factory, "digits", lambda place: export("digits", place, settings=paper, check=False))


@pytest.fixture
def digits_copy(digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits, tmp_path / "digits"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights, three images a run."""
    options = ExportOptions(batch=3, simplify=False)
    return _once(
        tmp_path_factory, "tiny", lambda place: export(TINY, place, weights="random", options=options, check=False)
    )


@pytest.fixture(scope="session")
def model(digits: Path) -> Model:
    return gtp_runtime.load(digits, threads=1)


@pytest.fixture(scope="session")
def batched(tiny: Path) -> Model:
    with pytest.warns(RandomWeightsWarning, match=r"random weights \(seed 0\)"):
        return gtp_runtime.load(tiny, threads=1)


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    shared = factory.getbasetemp()
    shared = shared.parent if shared.name.startswith("popen-") else shared  # pytest-xdist's workers
    with FileLock(shared / f"{name}.lock"):
        if not (shared / name).exists():
            make(shared / name)
    return shared / name


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code and what it said."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.strip().splitlines()[-1]

    @property
    def error(self) -> str:
        """What stands on stderr, as one line, without the frame that typer draws."""
        return " ".join(self.err.translate(str.maketrans("╭─╮│╰╯", "      ")).split())


Command = Callable[..., Ran]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """``gtp-export`` with these arguments, in this process, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["gtp-export", *map(str, arguments)])
        monkeypatch.setattr(console.Verbosity, "quiet", False)
        monkeypatch.setattr(console.Verbosity, "verbose", False)
        monkeypatch.setattr(console.Verbosity, "log_json", False)
        monkeypatch.setattr(console, "_shown", set())
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            command_line.main()
        out, err = capsys.readouterr()
        return Ran(int(stop.value.code or 0), out, err)

    return run


def python(code: str, *arguments: str) -> Ran:
    """Run code in a fresh interpreter that sees the four roots and nothing of this process."""
    roots = [str(ROOT / name) for name in (".", "exporters", "runtime", "models")]
    code = f"import sys; sys.path[:0] = {roots}; {code}"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)
