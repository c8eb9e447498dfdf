"""Every edit of one field of model.json either loads and predicts, or ends in a typed error: never in a traceback."""

import functools
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from artifacts import SEVEN

import gtp_runtime
from gtp_export import console
from gtp_export.commands.inspect import inspect
from gtp_runtime.backends import onnxruntime
from gtp_runtime.errors import GTPRuntimeError
from gtp_runtime.manifest import files

ENGINE: dict[str, Any] = {  # as build-engine describes one
    "flavor": "tensorrt",
    "version": "10.3.0",
    "onnx": "model.onnx",
    "onnx_sha256": "0" * 64,
    "layers": 3,
    "build_seconds": 1.5,
    "gpu": "Orin",
    "jetpack": "L4T 36.4",
    "targets": ["sm86"],
    "options": {"workspace": None},
    "device_memory": 5,
    "inspector": {"Layers": []},
}
DEEP: Any = functools.reduce(lambda inner, _: [inner], range(100), [])
NASTY: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    10**9,
    2**63,
    10**400,
    1.5,
    1e308,
    "",
    "x",
    "../x",
    "/etc/passwd",
    "[red]x[/blue]",
    "\x1b[2J",
    "line\nline",
    "\u202eabc",
    "a" * 10_000,
    [],
    [0],
    [None],
    [10**9, 10**9],
    ["x"],
    {},
    {"a": 1},
    {"": None},
    DEEP,
]


def places(values: Any, *keys: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the keys of every entry, of lists the first and the last."""
    named = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, entry in named:
        if isinstance(values, dict) or key in (0, len(values) - 1):
            yield (*keys, key)
            yield from places(entry, *keys, key)


def edited(text: str, keys: tuple[Any, ...], value: Any, delete: bool = False) -> str:
    values = json.loads(text)
    holder = functools.reduce(lambda found, key: found[key], keys[:-1], values)
    if delete:
        del holder[keys[-1]]
    else:
        holder[keys[-1]] = value
    return json.dumps(values)


@pytest.fixture
def export(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Digits with an engine in its manifest; the graph is opened and scanned once, for it does not change."""
    directory = Path(shutil.copytree(digits, tmp_path / "digits"))
    values = json.loads((directory / "model.json").read_text("utf-8"))
    values["files"]["model.engine"] = {**values["files"]["model.onnx"], "engine": ENGINE}
    values["results"] = {"parity": {"model.onnx": {"ok": True}}, "latency": {"model.onnx": {"p50_ms": 1.0}}}
    (directory / "model.json").write_text(json.dumps(values), encoding="utf-8")
    opening, sessions = onnxruntime._session, {}

    def opened(ort: Any, path: Path, *others: Any) -> Any:
        if path not in sessions:
            sessions[path] = opening(ort, path, *others)
        return sessions[path]

    monkeypatch.setattr(onnxruntime, "_session", opened)
    monkeypatch.setattr(files, "scan", functools.lru_cache(files.scan))
    monkeypatch.setattr(console.Verbosity, "quiet", True)
    return directory


def try_out(directory: Path) -> str:
    """Show, load and predict: the answer, or the name of the typed error, whose message is one line."""
    try:
        inspect(directory)
        inspect(directory, json=True)
        with warnings.catch_warnings(), gtp_runtime.load(directory, threads=1) as model:
            answer = model.predict(SEVEN)[0]
            return f"{answer.index} {answer.probability:.3f}"
    except GTPRuntimeError as error:
        name, text = type(error).__name__, str(error)
    assert text and "\n" not in text and "\x1b" not in text, repr(text)
    assert len(text) < 1000, text
    return name


def check(directory: Path, every: int, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = directory / "model.json"
    text = manifest.read_text("utf-8")
    expected = try_out(directory)
    assert expected.startswith("7 ")
    found: dict[str, int] = {}
    edits = [(keys, value, False) for keys in places(json.loads(text)) for value in NASTY]
    edits += [(keys, None, True) for keys in places(json.loads(text))]
    for index, (keys, value, delete) in enumerate(edits):
        if index % every:
            continue
        manifest.write_text(edited(text, keys, value, delete), encoding="utf-8")
        try:
            answer = try_out(directory)
        except Exception as error:
            raise AssertionError(f"{'.'.join(map(str, keys))} = {value!r:.60} ({delete=})") from error
        out = capsys.readouterr().out
        assert "\x1b[2J" not in out and "\u202e" not in out
        found[answer] = found.get(answer, 0) + 1
    assert found[expected] > 10, found
    assert found["ManifestError"] > 10, found


@pytest.mark.filterwarnings("ignore:.*exported with random weights")
def test_some_edits(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(export, 37, capsys)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*exported with random weights")
def test_every_edit(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(export, 1, capsys)
