"""Options of backends: given options are checked against those that the backend declares, and never ignored."""

import os
from collections.abc import Mapping
from numbers import Integral
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gtp_runtime.backends.registry import BackendSpec
from gtp_runtime.errors import InputError

THREADS = {"help": "CPU threads, 0 for all"}


def make_options(spec: BackendSpec, given: Mapping[str, Any]) -> Any:
    """Return a backend's options; None stands for the default.

    Raises:
        InputError: an option that the backend does not take, or a value that is not one of its.
    """
    kinds = get_type_hints(spec.options)
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        if name not in spec.option_names:
            takes = ", ".join(spec.option_names) or "none"
            raise InputError(f"{spec.name} takes no option {name}: it takes {takes}")
        _check(name, value, kinds[name])
    return spec.options(**chosen)


def _check(name: str, value: Any, kind: Any) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{name}={value!r}: choose one of {', '.join(get_args(kind))}")
    elif kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"{name}={value!r}: give True or False")
    elif isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name}={value!r}: give a whole number")


def check_threads(threads: int) -> None:
    """Check a number of threads.

    Raises:
        InputError: it is neither 0 (all) nor between 1 and the number of cores of this machine.
    """
    cores = os.cpu_count() or 1
    if not 0 <= threads <= cores:
        raise InputError(f"threads={threads}: give 1 to {cores} (the cores of this machine), or 0 for all")
