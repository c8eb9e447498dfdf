"""Registries: named entries, each from a file of its own.

A registry belongs to a package. The first look-up imports every module of that package; a module adds its entries with
``add``. So an entry that comes with gtp-export is one file in the package, and an application adds its own in the same
way from its own code.
"""

import importlib
import pkgutil
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
        package: the package whose modules hold the entries.
        setting: the setting that selects an entry, for messages.
    """

    def __init__(self, package: str, setting: str) -> None:
        self.package, self.setting = package, setting
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
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._complete = True
        return self._entries
