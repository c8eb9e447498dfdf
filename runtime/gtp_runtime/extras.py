"""Pip extras: the packages that a part of gtp-export needs, and whether they are installed."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec


@dataclass(frozen=True)
class Extra:
    """An extra of pyproject.toml, and of runtime/pyproject.toml where the runtime alone needs it.

    Attributes:
        name: as pip is given it.
        packages: import name to distribution name of what it installs: {"cuda.bindings": "cuda-python"}.
        system: import names of what must come with the device, as TensorRT does with JetPack.
    """

    name: str
    packages: Mapping[str, str]
    system: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command that installs it, for the distribution that is here."""
        return install_command(self.name)

    def missing(self) -> list[str]:
        """Return what is not installed here, by distribution name."""
        wanted = {**self.packages, **{name: name for name in self.system}}
        return [distribution for module, distribution in wanted.items() if not is_installed(module)]


def install_command(extra: str) -> str:
    """Return the command that installs an extra of the distribution that is here: the runtime may be alone."""
    distribution = "gtp-export" if is_installed("gtp_export") else "gtp-export-runtime"
    return f"pip install '{distribution}[{extra}]'"


def is_installed(module: str) -> bool:
    """Whether a module can be found; it is not imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not there
        return False
    except ValueError:  # it is loaded and says nothing of where from
        return True


def installed_version(module: str, name: str) -> str | None:
    """Return the version of a package by module and distribution name; None if it is missing.

    Where another distribution has the module (onnxruntime-gpu that of onnxruntime), its name follows.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        pass
    if not is_installed(module):
        return None
    others = packages_distributions().get(module.partition(".")[0], [])
    return ", ".join(f"{version(other)} ({other})" for other in others) or "installed"
