"""Logs go through the standard library under the names of the packages; --log-json makes lines of JSON of them."""

import ast
import json
import time
from pathlib import Path
from typing import Any, TypeGuard

import pytest
from artifacts import COMMANDS, Command, Ran, python
from test_imports import PACKAGES, sources

from gtp_export import console
from gtp_export.options import with_options

KEYS = {"time", "level", "logger", "message"}
PROGRAMS = {"train.py", "__main__.py"}


def records(ran: Ran) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in ran.err.splitlines()]
    assert all(set(record) >= KEYS for record in found)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_it(command: Command, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    monkeypatch.setenv("COLUMNS", "400")
    assert "--log-json" in command(name, "--help").out


def test_everything_on_stderr_is_json(command: Command, digits: Path) -> None:
    ran = command("validate", digits, "--log-json", "--threads", "1", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["ok"]
    found = records(ran)
    assert [record["message"] for record in found if record["logger"] == "gtp_export"] == ["validating"]
    (chosen,) = [record for record in found if record["logger"] == "gtp_runtime.loading"]
    assert chosen["level"] == "info"
    assert "runs model.onnx with onnxruntime" in chosen["message"]
    assert all(time.strptime(record["time"][:19], "%Y-%m-%dT%H:%M:%S") for record in found)
    assert {record["level"] for record in found} == {"info"}


@pytest.mark.filterwarnings("default::gtp_runtime.errors.RandomWeightsWarning")
def test_errors_notes_and_warnings(command: Command, digits: Path, tiny: Path) -> None:
    ran = command("bench", digits, "--log-json", "--no-footprint", "--seconds", "0", "--budget-ms", "1e-6", "-q")
    assert ran.code == 5
    assert records(ran)[-1] | {"time": ""} == {
        "time": "",
        "level": "error",
        "logger": "gtp_export",
        "message": records(ran)[-1]["message"],
    }
    assert records(ran)[-1]["message"].endswith("ms is over the budget of 1e-06 ms")
    ran = command("bench", tiny, "--log-json", "--no-footprint", "--seconds", "0", "-q")
    assert "warning" in {record["level"] for record in records(ran)}
    failed = command("inspect", digits / "nothing", "--log-json")
    (record,) = records(failed)
    assert (failed.code, record["level"]) == (1, "error")
    assert record["message"].startswith("no file")


def test_verbose_adds_debugging_and_the_traceback(command: Command, digits: Path) -> None:
    ran = command("export", "nosuch", "--log-json", "-v")
    record = records(ran)[-1]
    assert record["message"].startswith("no recipe is called 'nosuch'")
    assert record["traceback"].startswith("Traceback")
    assert "debug" in {
        record["level"]
        for record in records(command("bench", digits, "--log-json", "-v", "--no-footprint", "--seconds=0"))
    }


def test_without_it_nothing_changes(command: Command, digits: Path) -> None:
    ran = command("inspect", digits / "nothing")
    assert ran.err.startswith("error: no file")
    assert not console.Verbosity.log_json


def test_a_command_keeps_its_name_help_and_options() -> None:
    def sample(number: int = 3) -> None:
        """Help."""

    wrapped = with_options(console.set_verbosity)(sample)
    assert (wrapped.__name__, wrapped.__doc__) == ("sample", "Help.")
    wrapped(number=4, verbose=False, quiet=False, log_json=True)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_print_nothing(package: str) -> None:
    for path in sources(package):
        called = {node.func.id for node in ast.walk(ast.parse(path.read_text("utf-8"))) if is_plain_call(node)}
        assert path.name in PROGRAMS or "print" not in called, path


def is_plain_call(node: ast.AST) -> TypeGuard[Any]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


@pytest.mark.parametrize("package", PACKAGES)
def test_loggers_have_the_names_of_their_modules(package: str) -> None:
    for path in sources(package):
        for line in path.read_text("utf-8").splitlines():
            if "getLogger(" in line and "getLogger()" not in line and path.name not in ("console.py", "__main__.py"):
                assert "getLogger(__name__)" in line, path


def test_an_application_that_sets_up_no_logging_sees_nothing(digits: Path) -> None:
    ran = python(f"import gtp_runtime; gtp_runtime.load({str(digits)!r}, threads=1).selftest()")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
