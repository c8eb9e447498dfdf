"""Text is read and written as UTF-8, whatever the machine's locale is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifacts import ROOT

POSITION = {"read_text": 0, "write_text": 1}  # of the encoding
OPENERS = {"open", "fdopen"}
OTHERS = {"os", "Image", "spec", "staging", "webbrowser"}  # whose open() is no text file's


def sources() -> list[Path]:
    return [
        path for path in ROOT.rglob("*.py") if not {"build", "site-packages"} & set(path.relative_to(ROOT).parts[:-1])
    ]


def is_without(call: ast.Call) -> bool:
    """Whether a call reads or writes text and leaves the encoding to the locale."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name in POSITION:
        return len(call.args) <= POSITION[name]
    if name not in OPENERS or _opens_otherwise(call):
        return False
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    return not any("b" in mode for mode in filter(None, map(_mode, given)))


def _opens_otherwise(call: ast.Call) -> bool:
    """Whether this is no file's open: ``os.open``, or a method that takes more than a mode."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "open":
        return False
    owner = getattr(call.func.value, "id", "")
    return owner in OTHERS or (bool(call.args) and _mode(call.args[0]) is None)


def _mode(node: ast.expr) -> str | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) and set(value) <= set("rwxabt+") else None


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_every_text_file_has_an_encoding() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sources()
        for call in calls(ast.parse(path.read_text("utf-8")))
        if is_without(call)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("open(name)", True),
        ("open(name, 'rb')", False),
        ("path.open('w')", True),
        ("path.open(mode='wb')", False),
        ("os.fdopen(handle, 'w')", True),
        ("os.open(name, os.O_RDONLY)", False),
        ("backend.open(path, manifest)", False),
    ],
)
def test_the_check_sees(code: str, expected: bool) -> None:
    assert [is_without(call) for call in calls(ast.parse(code))] == [expected]
