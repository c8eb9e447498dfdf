"""Calls to the file system, counted, so that a test can stop at any of them."""

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

STEPS = ("fsync", "link", "mkdir", "open", "rename", "replace", "rmdir", "unlink", "write")
WRITE = "write_bytes"


@contextmanager
def counted(act: Callable[[int, str], None]) -> Iterator[None]:
    """Call ``act`` before each step with its number, from 0 on, and its name; what it raises is raised there.

    ``Path.write_bytes`` is a step too: if ``act`` raises, half of the content was written.
    """
    numbers = itertools.count()
    write = Path.write_bytes

    def wrapped(name: str, call: Any) -> Any:
        def stepping(*arguments: Any, **options: Any) -> Any:
            act(next(numbers), name)
            return call(*arguments, **options)

        return stepping

    def write_bytes(path: Path, content: bytes) -> int:
        try:
            act(next(numbers), WRITE)
        except OSError:
            write(path, content[: len(content) // 2])
            raise
        return write(path, content)

    with pytest.MonkeyPatch.context() as patched:
        for name in STEPS:
            patched.setattr(os, name, wrapped(name, getattr(os, name)))
        patched.setattr(Path, WRITE, write_bytes)
        yield


def failing(step: int, failed: list[str]) -> Callable[[int, str], None]:
    """Return an action that fails one step, as a full disk does, and notes its name in ``failed``."""

    def act(number: int, name: str) -> None:
        if number == step:
            failed.append(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return act
