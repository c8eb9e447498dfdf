"""Keeps how far an evaluation is in a file, so that one that was killed goes on from there.

The file is JSON of a few kilobytes, however many images there are, and replaced whole: sums over the images done so
far, and a key that says what was evaluated on what. Of images, the key has names, sizes and times, not their pixels.
"""

import json
import time
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from gtp_runtime import atomic
from gtp_runtime.accuracy import Scored, Tally
from gtp_runtime.errors import InputError
from gtp_runtime.opening import read_regular

FORMAT = "gtp-export evaluation 1"
LARGEST = 1 << 20  # bytes
SECONDS = 10.0  # between two writings


class Checkpoint:
    """The state of an evaluation, in a file where one is given.

    Args:
        path: the file; None keeps nothing. A missing file is a new evaluation, any other must be of this one.
        key: what tells this evaluation from others, as plain values.

    Attributes:
        done: images that need not be read again.
        tally: the sums over them.

    Raises:
        InputError: the file is of another evaluation, is none of ours, or cannot be read.
    """

    def __init__(self, path: str | PathLike[str] | None, key: dict[str, Any]) -> None:
        self.path, self.key = None if path is None else Path(path), key
        self.done, self.tally = 0, Tally()
        if self.path is not None and self.path.exists():
            self._read(self.path)
        self._written = time.monotonic()

    def add(self, scored: Scored, number: int = 0) -> None:
        """Add the scores that the file of this number has on images that are not done; writes from time to time.

        Raises:
            InputError: the file cannot be written.
        """
        for index, why in scored.unreadable:
            if index >= self.done:
                self.tally.add_unreadable(why)
        new = scored.indices >= self.done
        if new.any():
            scores = {name: values[new] for name, values in scored.scores[number].items()}
            self.tally.add(scores, int(new.sum()))
        self.done = max(self.done, scored.stop)
        if time.monotonic() - self._written >= SECONDS:
            self.write()

    def write(self) -> None:
        """Write the file.

        Raises:
            InputError: it cannot be written.
        """
        if self.path is None:
            return
        content = {"format": FORMAT, "key": self.key, "done": self.done, "tally": asdict(self.tally)}
        try:
            atomic.write_bytes(self.path, json.dumps(content, indent=1).encode() + b"\n")
        except OSError as error:
            raise InputError(
                f"cannot write {self.path}, where the evaluation is kept: {error.strerror or error}; give another file "
                "with --resume (resume=)"
            ) from error
        self._written = time.monotonic()

    def _read(self, path: Path) -> None:
        try:
            values = json.loads(read_regular(path, LARGEST))
            ours = values["format"] == FORMAT
            done, tally, key = msgspec.convert(
                [values["done"], values["tally"], values["key"]], tuple[int, Tally, dict[str, Any]]
            )
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; give another file with --resume") from error
        except (ValueError, LookupError, TypeError, RecursionError, msgspec.ValidationError):
            ours = False
        if not ours:
            raise InputError(f"{path} keeps no evaluation of gtp-export: give another file with --resume (resume=)")
        other = [name for name in {**key, **self.key} if key.get(name) != self.key.get(name)]
        if other:
            raise InputError(
                f"{path} keeps another evaluation ({', '.join(other)} differ): give another file with --resume "
                "(resume=), or remove it"
            )
        self.done, self.tally = done, tally
