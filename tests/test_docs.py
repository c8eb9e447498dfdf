"""The pages of docs/ and README.md: links, commands, options and names exist, README's examples run."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from artifacts import ROOT

from gtp_export.cli import ENTRIES, command

GUIDES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PAGES = [*GUIDES, ROOT / "CHANGELOG.md", *sorted((ROOT / "benchmarks" / "results").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
TARGET = re.compile(r"^([a-z0-9-]+):.*##", re.M)


def page_name(page: Path) -> str:
    return f"{page.parent.name}/{page.name}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> Iterator[str]:
    for name, anchor in LINK.findall(page.read_text("utf-8")):
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield f"{name}#{anchor}"


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command in the page's blocks of code without a language."""
    for block in re.findall(r"^```\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"\s*(gtp-export|make) ", line):
                yield shlex.split(line, comments=True)


def unknown_words(words: list[str]) -> Iterator[str]:
    """Yield what a command line names that does not exist: the command, an option, a target of make."""
    program, name, *rest = words
    if program == "make":
        targets = set(TARGET.findall((ROOT / "Makefile").read_text("utf-8")))
        yield from {name} - targets
        return
    if name not in ENTRIES:
        yield name
        return
    options = {option for part in command(name).params for option in (*part.opts, *part.secondary_opts)}
    yield from {word.partition("=")[0] for word in rest if word.startswith("-")} - options - {"-h", "--help"}


def named(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of everything of ours that the page's Python code names."""
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        yield from re.findall(r"\b(gtp_export|gtp_runtime)\.(\w+)\(", block)
        for module, names in re.findall(r"^from (gtp_[\w.]+) import (.+)$", block, re.M):
            yield from ((module, name) for name in names.split(", "))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_something(page: Path) -> None:
    assert list(dead_links(page)) == []


@pytest.mark.parametrize("page", GUIDES, ids=page_name)
def test_commands_and_options_exist(page: Path) -> None:
    assert [(words, word) for words in shown_commands(page) for word in unknown_words(words)] == []


@pytest.mark.parametrize("page", GUIDES, ids=page_name)
def test_names_in_python_code_exist(page: Path) -> None:
    assert [name for name in named(page) if not hasattr(importlib.import_module(name[0]), name[1])] == []


def test_the_index_names_every_guide() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    guides = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in guides if f"({name})" not in index} == set()


def test_the_examples_of_readme_run(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are random here, as they would be downloaded."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "digits").symlink_to(digits)
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    names: dict[str, Any] = {"images": torch.zeros(1, 3, 224, 224)}
    with torch.inference_mode():
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    assert names["trace"][2].propagated.shape[1] > 0
    assert names["logits"].shape == (1, 1000)
