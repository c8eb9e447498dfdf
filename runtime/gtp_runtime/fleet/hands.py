"""What runs on a node: one process, which does one thing after another."""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gtp_runtime.errors import InputError
from gtp_runtime.images.folders import image_names

Function = Callable[[Any], Any]
PACKAGES = ("gtp_runtime", "gtp_models", "gtp_exporters")  # whose functions nodes call; a board has the first alone


class Worker:
    """The process on a node.

    Args:
        code: the ``code_digests`` of the process that asks.
        images: a folder that must be on the node, and its ``names_digest``; None asks for none.
    """

    def __init__(self, code: Mapping[str, str], images: tuple[str, str] | None = None) -> None:
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
        """Check that every package that both have is the same; what a node lacks, it says when it is called."""
        own = code_digests()
        other = [name for name in own if name in self._code and own[name] != self._code[name]]
        if other:
            raise InputError(f"its {', '.join(other)} is another one: install the same gtp-export on every node")


@cache
def code_digests() -> dict[str, str]:
    """Return hashes of the source code of our packages, which decides what is answered, by name; hexadecimal digits."""
    specs = {name: find_spec(name) for name in PACKAGES}
    return {name: _digest(Path(spec.origin).parent) for name, spec in specs.items() if spec and spec.origin}


def _digest(home: Path) -> str:
    found = hashlib.sha256()
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
