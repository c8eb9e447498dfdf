"""Registries: named entries from modules that are imported when the first entry is looked up.

A registry lists the modules that hold the entries that come with gtp-export. An application adds its own entries with
``add``, from its own code.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Generic, Protocol, TypeVar

from gtp_models.errors import ConfigError


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str:
        """The name of the entry."""
        ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """Entries by name.

    Args:
        setting: the setting that selects an entry, for messages.
        modules: the modules that add the entries.
    """

    def __init__(self, setting: str, modules: Sequence[str]) -> None:
        self.setting, self.modules = setting, tuple(modules)
        self._entries: dict[str, Entry] = {}
        self._complete = False

    def add(self, entry: Entry) -> Entry:
        """Add an entry and return it.

        Raises:
            ConfigError: another entry has this name.
        """
        if self._entries.setdefault(entry.name, entry) is not entry:
            raise ConfigError(f"{self.setting}={entry.name!r} exists already: choose another name")
        return entry

    def names(self) -> tuple[str, ...]:
        """Return all names in alphabetical order."""
        return tuple(sorted(self._loaded()))

    def __getitem__(self, name: str) -> Entry:
        """Return an entry.

        Raises:
            ConfigError: no entry has this name.
        """
        entries = self._loaded()
        if not isinstance(name, str) or name not in entries:
            raise ConfigError(f"{self.setting}={name!r} is unknown: choose one of {', '.join(self.names())}")
        return entries[name]

    def _loaded(self) -> dict[str, Entry]:
        if not self._complete:
            for module in self.modules:
                import_module(module)
            self._complete = True
        return self._entries
