"""Exports of a few bytes, in directories that processes fight for or are killed over."""

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steps import counted

from gtp_runtime.errors import OutputError
from gtp_runtime.transaction import staged

NAMES = ("model.onnx", "dense.onnx", "reference.npz")


def write(place: Path, text: str, names: tuple[str, ...] = NAMES) -> None:
    """Write files, each with this text and its own name in it, and a manifest of them."""
    files = {}
    for name in names:
        content = f"{text} {name}".encode()
        (place / name).write_bytes(content)
        files[name] = {"role": "model", "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {"schema_version": "2.0", "model": {}, "weights": {}, "preprocessing": {}, "files": files}
    (place / "model.json").write_text(json.dumps(manifest), encoding="utf-8")


def replace(place: Path, text: str, names: tuple[str, ...] = NAMES) -> None:
    """Export as the pipeline does."""
    with staged(place) as staging:
        write(staging.path, text, names)
        staging.commit()


def text_of(place: Path) -> str | None:
    """Return the text of the export there if it is whole: all that the manifest lists, as it says; None otherwise."""
    manifest = place / "model.json"
    if not manifest.exists():
        return None
    found = set()
    for name, entry in json.loads(manifest.read_text("utf-8"))["files"].items():
        content = (place / name).read_bytes() if (place / name).exists() else b""
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            return None
        found.add(content.decode().removesuffix(f" {name}"))
    assert len(found) == 1, f"an export mixed of {found}"
    return found.pop()


def names_in(place: Path) -> set[str]:
    return {entry.name for entry in place.iterdir()}


def replace_for_ever(place: Path, number: int) -> None:
    """Replace the export again and again, with one file more every other time."""
    for count in range(1_000_000):
        replace(place, f"{number}.{count}", NAMES if count % 2 else (*NAMES, "dense.data"))


def die_at(place: Path, step: int, text: str) -> None:
    """Replace the export, and be killed before the given call to the file system."""
    with counted(lambda number, _: os.kill(os.getpid(), signal.SIGKILL) if number == step else None):
        replace(place, text)


def killed(number: int, seconds: float, call: Callable[..., None], *arguments: Any) -> int:
    """Call in a process of its own, send it a signal after this time and return its status: 0, or less the signal."""
    child = os.fork()
    if child == 0:
        try:
            call(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def serve() -> None:
    """Answer lines with calls of ``killed``: starting an interpreter for each takes too long."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it; here, before a signal can come
    for line in sys.stdin:
        number, seconds, name, place, *arguments = json.loads(line)
        print(killed(number, seconds, globals()[name], Path(place), *arguments), flush=True)


def hold(place: str) -> None:
    """Export, and wait for a line on stdin before the commit."""
    with staged(place) as staging:
        write(staging.path, "held")
        print("ready", flush=True)
        sys.stdin.readline()
        staging.commit()


def race(place: str, text: str, commits: str) -> None:
    """Export many times, with commit or without; say how often it was done and how often refused."""
    done = refused = 0
    until = time.monotonic() + 1
    while time.monotonic() < until:
        try:
            with staged(place) as staging:
                write(staging.path, text)
                if commits == "commits":
                    staging.commit()
            done += 1
        except OutputError as error:
            if "is exporting to" not in str(error):
                raise
            refused += 1
    print(done, refused)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
