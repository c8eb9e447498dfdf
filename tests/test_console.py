"""Progress, logs and signals of the command line; the public names of its packages."""

import ast
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from artifacts import ROOT, Command, python
from test_imports import PACKAGES

from gtp_export import console
from gtp_export.commands import COMMANDS
from gtp_runtime.messages import Progress, quiet

LAZY = ("gtp_models", "gtp_exporters", "gtp_export")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.Verbosity, "quiet", False)
    monkeypatch.setattr(console.Verbosity, "verbose", False)


def work(progress: Progress) -> None:
    for share in (0.0, 0.5, 1.0):
        progress("validating [model.onnx]", share)
    progress("benchmarking")


def test_progress_is_one_line_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("starting") as update:
        work(update)
        work(update)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "validating [model.onnx]\nbenchmarking\n")


def test_progress_moves_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = console.Console(stderr=True, force_terminal=True, width=80)
    monkeypatch.setattr(console, "err", terminal)
    with console.progress("starting") as update:

        def tell(task: str, share: float | None = None) -> None:
            update(task, share)
            update.__self__.bars.refresh()  # type: ignore[attr-defined]

        work(tell)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    for words in ("validating [model.onnx]", "50%", "100%", "benchmarking"):
        assert words in shown


def test_quiet_shows_no_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console.Verbosity, "quiet", True)
    with console.progress("starting") as update:
        work(update)
    assert update is quiet
    assert capsys.readouterr().err == ""


def test_verbose_shows_what_is_logged(command: Command, digits_copy: Path) -> None:
    ran = command("validate", digits_copy, "-q", "--json", "-v")
    assert f"gtp_runtime.loading: {digits_copy}: runs model.onnx with onnxruntime" in ran.err
    ran = command("validate", digits_copy, "-q", "--json")
    assert ran.err == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_libraries_log_under_their_names_and_print_nothing(package: str) -> None:
    ran = python(f"import logging, {package}; print(*map(repr, logging.getLogger('{package}').handlers))")
    assert (ran.out, ran.err) == ("<NullHandler (NOTSET)>\n", "")


@pytest.mark.parametrize("package", ["gtp_runtime", "gtp_models", "gtp_exporters"])
def test_libraries_never_print(package: str) -> None:
    for path in (PACKAGES[package] / package).rglob("*.py"):
        if path.parts[-2:] in (("digits", "train.py"), ("gtp_runtime", "__main__.py")):  # programs
            continue
        calls = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"], path


def test_every_module_of_commands_is_in_the_table() -> None:
    names = {path.stem for path in (ROOT / "gtp_export" / "commands").glob("*.py")} - {"__init__"}
    assert {entry.module for entry in COMMANDS} == names
    assert len(COMMANDS) == len({entry.function for entry in COMMANDS})


SLEEP = """
import os, sys, time
from pathlib import Path
from gtp_export import cli
from gtp_export.commands import listing
from gtp_runtime import atomic

def sleep() -> None:
    with atomic.replacing(Path("file")) as temporary:
        temporary.write_bytes(b"half")
        print("writing", flush=True)
        for _ in range(600):  # in steps: a signal just before a sleep begins does not end that sleep
            time.sleep(0.1)

listing.models = sleep
cli.main()
"""


def sleeping(folder: Path, before: str) -> "subprocess.Popen[str]":
    """Start a command that has written half of a file."""
    roots = os.pathsep.join(str(ROOT / name) for name in (".", "exporters", "runtime", "models"))
    process = subprocess.Popen(
        [sys.executable, "-c", before + SLEEP, "models"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": roots},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n", process.stderr.read() if process.stderr else ""
    assert len(os.listdir(folder)) == 1
    return process


def hangup(handler: str) -> str:
    """Set what SIGHUP does at first, which the tests' own process may have inherited from nohup."""
    return f"import signal; signal.signal(signal.SIGHUP, signal.{handler})\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_what_is_half_written_goes(tmp_path: Path, number: signal.Signals) -> None:
    process = sleeping(tmp_path, hangup("SIG_DFL"))
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + number, "")
    assert os.listdir(tmp_path) == []


def test_nohup_is_heeded(tmp_path: Path) -> None:
    process = sleeping(tmp_path, hangup("SIG_IGN"))
    process.send_signal(signal.SIGHUP)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("package", LAZY)
def test_a_package_lists_its_names_once(package: str) -> None:
    folder = PACKAGES[package] / package
    tree = ast.parse((folder / "__init__.pyi").read_text("utf-8"))
    assert all(isinstance(node, ast.ImportFrom) for node in tree.body)
    aliases = [entry for node in tree.body if isinstance(node, ast.ImportFrom) for entry in node.names]
    assert all(entry.name == entry.asname for entry in aliases), "re-exported under its own name"
    module = sys.modules[package]
    assert sorted(entry.name for entry in aliases) == module.__all__
    assert set(module.__all__) <= set(dir(module))
    source = (folder / "__init__.py").read_text("utf-8").rpartition('"""')[2]
    assert not [name for name in module.__all__ if name in source.split()]


def test_public_names_are_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    checked = tmp_path / "use.py"
    checked.write_text(
        "from gtp_export import GTPConfig, load\n"
        "from gtp_models import GTPConfig as Same\n"
        "reveal_type(GTPConfig)\nreveal_type(Same)\nreveal_type(load)\n"
        "from gtp_export import nothing\n",
        encoding="utf-8",
    )
    environment = {
        **os.environ,
        "MYPYPATH": os.pathsep.join(str(ROOT / name) for name in ("", "exporters", "runtime", "models")),
    }
    others = ", ".join(f"{name}.*" for name in ("torch", "timm", "onnx", "numpy", "PIL", "msgspec", "typer", "rich"))
    config = tmp_path / "mypy.ini"
    config.write_text(
        f"[mypy]\nstrict = True\nfollow_imports = silent\n[mypy-{others}]\nfollow_imports = skip\n", encoding="utf-8"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", tmp_path / "cache", checked],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=tmp_path,
    )
    assert ran.stdout.count("config.GTPConfig") == 2, ran.stdout + ran.stderr
    assert "-> gtp_runtime.model.Model" in ran.stdout
    assert 'has no attribute "nothing"' in ran.stdout


def test_logs_of_an_application_are_left_alone() -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    console.show_logs()
    console.show_logs()
    assert root.handlers == before
    assert logging.getLogger("gtp_runtime").handlers.count(console._handler) == 1


@pytest.mark.parametrize("name", ["cat [final].jpg", "a[/b].jpg", "[red]x"])
def test_a_table_shows_text_as_it_is(capsys: pytest.CaptureFixture[str], name: str) -> None:
    console.table(name, (name, "n"), [(name, "1")])
    assert capsys.readouterr().out.count(name) == 3
