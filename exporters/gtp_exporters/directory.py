"""Writes a directory whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gtp_exporters.errors import OutputError
from gtp_runtime.manifest import FILE_NAME


@contextmanager
def written_whole(directory: Path) -> Iterator[Path]:
    """Yield a temporary directory beside ``directory``; on success it takes its place, on failure it is gone.

    Raises:
        OutputError: ``directory`` is something else than an earlier export, or cannot be written.
    """
    directory = directory.resolve()
    check_place(directory)
    temporary = None
    made = [parent for parent in directory.parents if not parent.exists()]
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        temporary.chmod(0o755)
        yield temporary
        _take_place(temporary, directory)
    except OSError as error:
        raise OutputError(_explain(error, directory)) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:  # the nearest first; those that hold the export stay
            with suppress(OSError):
                parent.rmdir()


def check_place(directory: Path) -> None:
    """Raise ``OutputError`` unless ``directory`` is free, or holds an earlier export."""
    directory = directory.resolve()
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"{directory} is a file: -o names the artifact directory")
    parent = next(place for place in directory.parents if place.exists())
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{parent} cannot be written: choose another -o")
    if directory.is_dir() and Path.cwd().is_relative_to(directory):
        raise OutputError(f"{directory} is where you are, and would be replaced: choose another -o, or leave it first")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / FILE_NAME).exists():
        raise OutputError(f"{directory} holds other files and no {FILE_NAME}: choose another -o, or empty it first")


def _take_place(temporary: Path, directory: Path) -> None:
    """Swap the new export in; whatever happens in between, the old one comes back."""
    old = directory.with_name(f".{directory.name}-old-{os.getpid()}")
    try:
        if directory.exists():
            directory.rename(old)
        temporary.rename(directory)
    except BaseException:
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _explain(error: OSError, directory: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left to write {directory}: free some, or choose another place with -o; nothing was left behind"
        )
    return f"cannot write {directory}: {error.strerror or error}; nothing was left behind"


class Staging:
    """Stands in until the new one lands."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def commit(self) -> None:
        """Do nothing."""


@contextmanager
def staged(directory: Path) -> Iterator[Staging]:
    """Stand in until the new one lands."""
    with written_whole(directory) as path:
        yield Staging(path)
