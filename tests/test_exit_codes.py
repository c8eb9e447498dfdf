"""What the command line makes of errors: one line, an exit code, and a traceback only with -v."""

import errno
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifacts import Command

from gtp_export.commands import inspect as command_module
from gtp_exporters.errors import ExportError
from gtp_models.checkpoints import read_checkpoint
from gtp_models.errors import WeightsError
from gtp_runtime.errors import GTPError, first_line

CODES = {  # of the errors that do not mean 1, failed
    2: {
        "ConfigError",
        "InputError",
        "LimitError",
        "NoClassesError",
        "UnknownModelError",
        "UnsupportedModelError",
        "WeightsError",
    },
    3: {"ParityFailedError", "QuantizationFailedError", "SelfTestError"},
    4: {
        "BackendMissingError",
        "DeviceError",
        "FleetError",
        "HubUnreachableError",
        "MissingPackageError",
        "RandomWeightsError",
        "WeightsUnavailableError",
    },
    5: {"BudgetMissedError"},
}
FULL = OSError(errno.ENOSPC, "No space left on device")


def kinds(of: type[GTPError] = GTPError) -> Iterator[type[GTPError]]:
    for kind in of.__subclasses__():
        if kind.__module__.startswith("gtp_"):
            yield from (kind, *kinds(kind))


def test_every_class_of_error_has_its_exit_code() -> None:
    other = {name: code for code, names in CODES.items() for name in names}
    found = {kind.__name__: kind.exit_code for kind in kinds()}
    assert ExportError.__name__ in found  # all three packages are loaded
    assert found == {name: other.get(name, 1) for name in found}
    assert set(other) <= set(found)


@pytest.mark.parametrize("code", [1, 3, 5])
def test_the_command_line_ends_with_the_code_of_the_error(
    command: Command, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    class OddError(GTPError):
        exit_code = code

    def refuse(path: Path) -> None:
        raise OddError("odd")

    monkeypatch.setattr(command_module, "read_manifest", refuse)
    ran = command("inspect", ".")
    assert (ran.code, ran.out, ran.err) == (code, "", "error: odd\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "out/model.json"), "out/model.json: Permission denied"),
        (FULL, "No space left on device: make room"),
        (OSError("odd"), "odd: check the files"),
        (OSError(), "OSError: check the files"),
    ],
)
def test_an_error_of_the_system_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    def refuse(path: Path) -> None:
        raise error

    monkeypatch.setattr(command_module, "read_manifest", refuse)
    ran = command("inspect", ".")
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err.splitlines()) == 1


def test_verbose_adds_the_traceback_and_keeps_the_code(command: Command) -> None:
    ran = command("export", "nosuch", "-v")
    assert ran.code == command("export", "nosuch").code == 2
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-1].startswith("error: no recipe is called 'nosuch'")


def test_doctor_with_a_broken_onnxruntime(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtp_export.commands.doctor.is_installed", lambda module: True)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran = command("doctor", "--json")
    assert (ran.code, json.loads(ran.out)["providers"]) == (0, [])
    assert "cannot be loaded" in ran.err


@pytest.mark.parametrize(
    ("error", "line"), [(ValueError("a\nb"), "a"), (ValueError(), "ValueError"), (ValueError("\n"), "ValueError")]
)
def test_the_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_weights_whose_reader_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise EOFError

    (tmp_path / "x.pth").write_bytes(b"x")
    monkeypatch.setattr("torch.load", fail)
    with pytest.raises(WeightsError, match=r"x\.pth: EOFError"):
        read_checkpoint(tmp_path / "x.pth")
