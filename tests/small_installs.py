"""Installs of a few bytes that are killed, or whose calls to the file system fail, one call after the other.

It runs as a program of its own: a process with torch in it takes too long to fork, and no engine is needed here.
"""

import errno
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gtp_runtime.deploy import install as updating
from gtp_runtime.deploy import store
from gtp_runtime.deploy.install import Installed
from gtp_runtime.errors import GTPRuntimeError
from gtp_runtime.manifest import check_file, read_manifest, write_manifest

CALLS = ("fsync", "mkdir", "open", "rename", "replace", "rmdir", "symlink", "unlink", "write")
NAME = "report.html"
MOST = 200  # calls of one install


def make(digits: Path, place: Path, text: str) -> Path:
    """Write an export of a report and a manifest, which has this text as its note."""
    place.mkdir(parents=True)
    shutil.copy(digits / NAME, place)
    manifest = read_manifest(digits)
    write_manifest(replace(manifest, files={NAME: manifest.files[NAME]}, notes=[text], results={}), place)
    return place


def text_of(target: Path) -> str | None:
    """Return the text of the export there, which must be whole; None if there is nothing."""
    if not target.exists():
        return None
    manifest = read_manifest(target)
    for name in manifest.files:
        check_file(target / name, manifest)
    return manifest.notes[0]


def act(action: str, source: Path, target: Path) -> Installed:
    updating.prove = lambda *arguments: SimpleNamespace(file=NAME)  # type: ignore[assignment, misc, return-value]
    return updating.rollback(target) if action == "rollback" else updating.install(source, target)


def fail_at(step: int, fail: Callable[[], None]) -> Callable[[], bool]:
    """Let the given call to the file system fail; what is returned says whether it came to that."""
    left = step

    def counted(call: Any) -> Any:
        def counting(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                fail()
            return call(*arguments, **options)

        return counting

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    store.exchange = counted(store.exchange)
    return lambda: left < 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def forked(step: int, mode: str, action: str, source: Path, target: Path) -> int:
    """Act in a process of its own.

    Returns:
        0 done though a call failed, 1 a typed error, 2 another one, 3 done without a failure, or less the signal.
    """
    child = os.fork()
    if child == 0:
        try:
            failed = fail_at(step, {"die": die, "refuse": refuse}[mode])
            act(action, source, target)
            status = 0 if failed() else 3
        except GTPRuntimeError:
            status = 1
        except BaseException:
            traceback.print_exc()
            status = 2
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def each_step(digits: str, work: str, start: str, mode: str) -> None:
    """Print for each step its status, what the target holds afterwards, and what after one more install."""
    root = Path(work)
    old, new, last = (make(Path(digits), root / text, text) for text in ("old", "new", "last"))
    for step in range(MOST):
        target = root / str(step) / "vit"
        target.parent.mkdir()
        prepare(start, old, new, target)
        status = forked(step, mode, start, new, target)
        left = text_of(target)
        act("update", last, target)
        folder = target.parent / ".vit.installed"
        print(json.dumps([status, left, text_of(target), len(list(folder.iterdir()))]))
        if status == 3:
            return
        shutil.rmtree(target.parent)


def prepare(start: str, old: Path, new: Path, target: Path) -> None:
    if start == "adopt":
        shutil.copytree(old, target)
    elif start != "first":
        act("update", old, target)
    if start == "rollback":
        act("update", new, target)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
