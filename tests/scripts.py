"""The scripts of benchmarks/, for tests."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gtp_models import METHODS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
Script = Callable[[str], Any]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Import a script by its name, as it finds its neighbours when it is run.

    The methods that it adds are gone after the test, and so are its modules, which would not add them again.
    """
    for name in METHODS:
        METHODS[name]  # imports the package's own
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name, module in list(sys.modules.items()):
        if BENCHMARKS in Path(getattr(module, "__file__", None) or "/").parents:
            del sys.modules[name]
