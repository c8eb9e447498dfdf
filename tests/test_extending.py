"""The examples of docs/extending.md run as they are written."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts import ROOT

from gtp_models import METHODS, trace_tokens
from gtp_models.methods.gtp.selections import SELECTIONS
from gtp_runtime.backends import BACKENDS

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")


def examples(heading: str) -> dict[str, Any]:
    """Run the code of a section and return its names."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert section is not None
    blocks = re.findall(r"```python\n(.*?)```", section[1], re.S)
    assert blocks
    names: dict[str, Any] = {"__name__": f"example of {heading}"}
    for block in blocks:
        exec(compile(block, heading, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    METHODS.names()  # imports those that come with gtp-export
    known = [METHODS._entries, SELECTIONS._entries, BACKENDS._entries]
    before = [dict(entries) for entries in known]
    yield
    for entries, kept in zip(known, before, strict=True):
        entries.clear()
        entries.update(kept)  # type: ignore[arg-type]


def test_a_selection() -> None:
    config = examples("A selection")["config"]
    assert config.selection == "Length"
    assert "Length" in SELECTIONS.names()


def test_a_method() -> None:
    model = examples("A method")["model"]
    with torch.inference_mode(), trace_tokens(model) as trace:
        model(torch.zeros(1, 3, 224, 224))
    assert [bool(step.propagated.numel()) for step in trace] == [layer % 4 == 3 for layer in range(12)]


def test_a_backend(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = Path.cwd()
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "digits").symlink_to(digits)
    (tmp_path / "models").symlink_to(ROOT / "models")
    try:
        os.chdir(tmp_path)
        examples("A backend")
    finally:
        os.chdir(here)
    assert "label='7'" in capsys.readouterr().out


def test_every_place_of_the_page_exists() -> None:
    table = PAGE.split("## A selection")[0]
    places = re.findall(r"^\| [^|]+ \| `([a-z_/.]+)`", table, re.M)
    assert len(places) >= 7
    assert all((ROOT / place).exists() for place in places)
