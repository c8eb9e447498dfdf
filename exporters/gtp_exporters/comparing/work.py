"""The working folder of a comparison: what was measured so far, so that one that was stopped goes on from there.

It is ``.gtp-export/compare`` in the output directory, and removed once the results are written.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from gtp_exporters.comparing.rows import Row
from gtp_exporters.directory import tidied
from gtp_exporters.directory.lock import held
from gtp_runtime import atomic
from gtp_runtime.manifest import WORK_NAME
from gtp_runtime.opening import read_regular

STATE_NAME = "state.json"
LARGEST = 1 << 26  # bytes


class Work:
    """What a comparison has measured.

    Args:
        place: the working folder.

    Attributes:
        graphs, evaluations: folders in it.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.graphs, self.evaluations = place, place / "graphs", place / "evaluations"
        self._key: dict[str, Any] = {}
        self._parts: dict[str, list[Row]] = {}

    def open(self, key: dict[str, Any]) -> None:
        """Take up what was measured under the same key; what another comparison left is removed."""
        self._key = key
        try:
            values = json.loads(read_regular(self.place / STATE_NAME, LARGEST))
            known, parts = values["key"], msgspec.convert(values["parts"], dict[str, list[Row]])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            known, parts = None, {}
        if known != key:
            shutil.rmtree(self.evaluations, ignore_errors=True)
            parts = {}
        self._parts = parts
        self.evaluations.mkdir(parents=True, exist_ok=True)

    def find(self, part: str) -> list[Row] | None:
        """Return the rows of a part; None if it was not measured yet."""
        return self._parts.get(part)

    def keep(self, part: str, rows: Sequence[Row]) -> None:
        """Keep the rows of a part."""
        self._parts[part] = list(rows)
        content = json.dumps({"key": self._key, "parts": msgspec.to_builtins(self._parts)})
        atomic.write_bytes(self.place / STATE_NAME, content.encode())

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to go on from."""
        return not self._parts and not any(self.evaluations.glob("*.json"))


@contextmanager
def working(directory: Path) -> Iterator[Work]:
    """Yield the working folder of an output directory, which no other process uses meanwhile.

    After an error it stays if something was measured; it is removed otherwise.

    Raises:
        OutputError: another process uses it.
    """
    with tidied(directory), held(directory / WORK_NAME):
        work = Work(directory / WORK_NAME / "compare")
        shutil.rmtree(work.graphs, ignore_errors=True)  # perhaps of another model
        try:
            yield work
        except BaseException:
            shutil.rmtree(work.place if work.is_empty else work.graphs, ignore_errors=True)
            raise
        shutil.rmtree(work.place)
