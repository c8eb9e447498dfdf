"""Text is read and written as UTF-8, whatever the machine's locale is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifacts import ROOT

POSITION = {"read_text": 0, "write_text": 1}  # of the encoding
OPENERS = {"open", "fdopen"}
OTHERS = {"os", "Image", "staging", "webbrowser"}  # whose open() is no text file's


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
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if name not in OPENERS or (name == "open" and isinstance(owner, ast.Name) and owner.id in OTHERS):
        return False
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [node.value for node in given if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return not any("b" in mode for mode in modes if set(mode) <= set("rwxabt+"))


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
    ],
)
def test_the_check_sees(code: str, expected: bool) -> None:
    assert [is_without(call) for call in calls(ast.parse(code))] == [expected]
