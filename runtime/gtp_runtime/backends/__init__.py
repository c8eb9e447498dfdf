"""What runs a file: one module a runtime, each imported only when it is used."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class Backend(Protocol):
    """A loaded file, ready to run; safe to share between threads."""

    name: str
    info: dict[str, Any]  # version, threads, provider: what a measurement depends on

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once: arrays by input name in, arrays by output name out."""
        ...

    def close(self) -> None:
        """Free what is held; running is an error afterwards."""
        ...
