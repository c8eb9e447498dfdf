"""Registries: named entries, such as backends, methods or selections. Every kind of entry has one ``Registry``.

Entries are added by literal name where they are defined, so a search for a name finds its definition. The package of a
registry imports the modules of its own entries in its ``__init__``: nothing walks over files, so programs that
PyInstaller froze and zip applications have the same entries. Entries that are too heavy for that stand in modules that
the registry names, and each is imported when it is looked up. An application adds its own in the same way.

    COLOURS: Registry[Colour] = Registry("colour", InputError)
    RED = COLOURS.add(Colour("red"))
    COLOURS["red"] is RED
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str:
        """The name of the entry."""
        ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name, in alphabetical order.

    Args:
        kind: what an entry is, or the setting that selects one: "backend", "selection". Messages start with it.
        error: the class of all errors.
        modules: of entries that are heavy to import, the module that adds each, by its name.
    """

    def __init__(self, kind: str, error: type[Exception], modules: Mapping[str, str] | None = None) -> None:
        self.kind, self.error = kind, error
        self._entries: dict[str, Entry] = {}
        self._modules = dict(modules or {})

    def add(self, entry: Entry) -> Entry:
        """Add an entry and return it; it decorates classes that have a ``name``. Adding it again changes nothing.

        Raises:
            The registry's error: another entry has this name.
        """
        if self._entries.setdefault(entry.name, entry) is not entry:
            raise self.error(f"{self.kind}={entry.name!r} exists already: choose another name")
        return entry

    def names(self) -> tuple[str, ...]:
        """Return all names in alphabetical order."""
        return tuple(self)

    def __getitem__(self, name: str) -> Entry:
        """Return an entry.

        Raises:
            The registry's error: no entry has this name.
        """
        if name not in self:
            raise self.error(f"{self.kind}={name!r} is unknown: choose one of {', '.join(self)}")
        if name not in self._entries:
            import_module(self._modules[name])
        return self._entries[name]

    def __contains__(self, name: Any) -> bool:
        return isinstance(name, str) and (name in self._entries or name in self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._entries, *self._modules}))

    def __len__(self) -> int:
        return len({*self._entries, *self._modules})
