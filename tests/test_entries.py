"""Registries: what one holds, in which order, and what is refused."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from artifacts import python

from gtp_runtime.errors import InputError
from gtp_runtime.registry import Registry


@dataclass(frozen=True)
class Colour:
    name: str


@pytest.fixture
def colours() -> Registry[Colour]:
    registry: Registry[Colour] = Registry("colour", InputError)
    for name in ("red", "amber"):
        registry.add(Colour(name))
    return registry


def test_entries_are_found_by_name_in_alphabetical_order(colours: Registry[Colour]) -> None:
    assert colours["red"] == Colour("red")
    assert colours.names() == tuple(colours) == ("amber", "red")
    assert list(colours.items()) == [("amber", Colour("amber")), ("red", Colour("red"))]
    assert ("red" in colours, "grey" in colours, ["red"] in colours, len(colours)) == (True, False, False, 2)


def test_a_class_is_added_where_it_is_defined() -> None:
    registry: Registry[Any] = Registry("shape", InputError)

    @registry.add
    class Square:
        name: ClassVar[str] = "square"

    assert registry["square"] is Square


def test_a_second_entry_of_a_name_is_refused(colours: Registry[Colour]) -> None:
    red = colours["red"]
    with pytest.raises(InputError, match="colour='red'"):
        colours.add(Colour("red"))
    assert colours["red"] is red
    assert colours.add(red) is red, "the same one again is no second one"


@pytest.mark.parametrize("name", ["grey", "", None, 3, ["red"]])
def test_an_unknown_name_lists_the_choices(colours: Registry[Colour], name: Any) -> None:
    with pytest.raises(InputError, match="colour=.*amber, red"):
        colours[name]


def test_a_named_module_is_imported_when_its_entry_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm: Registry[Colour] = Registry("colour", InputError, modules={"red": "warm_colours"})
    code = "from test_entries import Colour, WARM\nWARM.add(Colour('red'))\n"
    (tmp_path / "warm_colours.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(globals(), "WARM", warm)
    warm.add(Colour("blue"))
    assert (warm.names(), len(warm), "red" in warm) == (("blue", "red"), 2, True)
    with pytest.raises(InputError, match="colour='grey'"):
        warm["grey"]
    assert "warm_colours" not in sys.modules, "names are known without the module"
    try:
        assert warm["red"] == Colour("red")
    finally:
        del sys.modules["warm_colours"]


def test_it_is_light() -> None:
    ran = python("import gtp_runtime.registry, sys; print('torch' in sys.modules)")
    assert ran.out.split() == ["False"], ran.err
