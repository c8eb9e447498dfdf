"""What runs on a node: one process, which does one thing after another."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gtp_runtime.errors import InputError
from gtp_runtime.images import image_names

Function = Callable[[Any], Any]


class Worker:
    """The process on a node.

    Args:
        code: the ``code_digest`` of the process that asks.
        images: a folder that must be on the node, and its ``names_digest``; None asks for none.
    """

    def __init__(self, code: str, images: tuple[str, str] | None = None) -> None:
        self._code, self._images = code, images
        self._tasks: dict[str, Function] = {}
        self._has_images = images is None

    def begin(self, task: str, make: Callable[[], Function]) -> None:
        """Let ``make`` make the function of a task.

        Raises:
            InputError: this node has another gtp-export, or other images.
        """
        self._check_code()
        if not self._has_images and self._images is not None:
            check_images(*self._images)
            self._has_images = True
        self._tasks[task] = make()

    def do(self, task: str, item: Any) -> Any:
        """Call the function of a task."""
        return self._tasks[task](item)

    def end(self, task: str) -> None:
        """Forget a task, with what its function holds."""
        self._tasks.pop(task, None)

    def call(self, function: Function, item: Any) -> Any:
        """Call a function.

        Raises:
            InputError: this node has another gtp-export.
        """
        self._check_code()
        return function(item)

    def _check_code(self) -> None:
        if code_digest() != self._code:
            raise InputError("its gtp-export is another one: install the same on every node")


@cache
def code_digest() -> str:
    """Return a hash of the runtime's source code, which decides what a node answers; hexadecimal digits."""
    home, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        found.update(path.relative_to(home).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def names_digest(folder: str) -> str:
    """Return a hash of the names of the images below a folder; hexadecimal digits. Raises as ``image_names`` does."""
    found = hashlib.sha256()
    for name in image_names(folder):
        found.update(name + b"\n")
    return found.hexdigest()


def check_images(folder: str, digest: str) -> None:
    """Check that a folder holds the images that are meant, by their names.

    Raises:
        ImageError: it is not there.
        InputError: it holds others.
    """
    if names_digest(folder) != digest:
        raise InputError(f"{folder} holds other images than where the command runs: copy the same there, or mount it")
