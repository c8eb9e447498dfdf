"""What latency depends on beside files and options: the machine and its engines' versions; and where times are kept."""

import os
import platform
from collections.abc import Iterable
from pathlib import Path

from gtp_runtime.backends import BACKENDS
from gtp_runtime.backends.tensorrt.cuda import find_cuda
from gtp_runtime.cpus import processor, usable_cpus
from gtp_runtime.errors import GTPRuntimeError
from gtp_runtime.extras import installed_version

BOARD = Path("/proc/device-tree/model")  # of a Jetson or another Arm board


def describe_machine(backends: Iterable[str]) -> dict[str, str]:
    """Return the machine, its processor and GPU, and the versions of the packages that backends need.

    Args:
        backends: names of backends; unknown names are left out.
    """
    packages = {
        name: module
        for backend, spec in BACKENDS.items()
        if backend in set(backends)
        for extra in spec.extras
        for module, name in extra.packages.items()
    }
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "board": _read(BOARD).strip("\0\n"),
        "processor": processor(),
        "cpus": str(usable_cpus()),
        "gpu": _gpu(),
        **{name: installed_version(module, name) or "" for name, module in packages.items()},
    }


def user_cache() -> Path:
    """Return the user's folder of what can be measured again: ``$XDG_CACHE_HOME/gtp-export``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gtp-export"


def _gpu() -> str:
    try:
        device = find_cuda().describe()
    except GTPRuntimeError:
        return ""
    return f"{device['gpu']}, driver {device['driver']}"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
