import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gtp_runtime import atomic


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with an earlier content."""
    path = tmp_path / "model.json"
    path.write_bytes(b"earlier")
    return path


def test_write_bytes_replaces(file: Path) -> None:
    atomic.write_bytes(file, b"new")
    assert file.read_bytes() == b"new"
    assert os.listdir(file.parent) == ["model.json"]


def test_a_new_file(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "new", b"new")
    assert (tmp_path / "new").read_bytes() == b"new"


@pytest.mark.parametrize("step", ["write", "fsync", "replace", "open"])
def test_a_failure_leaves_the_earlier_file(file: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((Path, "write_bytes") if step == "write" else (atomic.os, step)), full)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(file, b"new")
    monkeypatch.undo()
    assert file.read_bytes() == b"earlier"
    assert os.listdir(file.parent) == ["model.json"]


def test_the_folder_that_cannot_be_flushed_is_no_failure(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = atomic.flush
    flushed: list[Path] = []

    def files_only(path: Path) -> None:
        flushed.append(path)
        if path.is_dir():
            raise OSError(22, "Invalid argument")
        flush(path)

    monkeypatch.setattr(atomic, "flush", files_only)
    atomic.write_bytes(file, b"new")
    assert file.read_bytes() == b"new"
    assert flushed[1:] == [file.parent]


def test_an_interrupt_leaves_the_earlier_file(file: Path) -> None:
    def interrupted() -> None:
        with atomic.replacing(file) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.read_bytes() == b"earlier"
    assert os.listdir(file.parent) == ["model.json"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_are_those_of_a_new_file(file: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        atomic.write_bytes(file, b"new")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == mode


def test_a_link_stays_and_its_target_is_replaced(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    link = folder / "link.json"
    link.symlink_to(file)
    atomic.write_bytes(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert os.listdir(folder) == ["link.json"]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "model.json"
    folder.mkdir()
    with pytest.raises(OSError, match="directory"):
        atomic.write_bytes(folder, b"new")
    assert os.listdir(tmp_path) == ["model.json"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        atomic.write_bytes(tmp_path / "missing" / "model.json", b"new")


def test_two_writers_of_one_file(file: Path) -> None:
    with atomic.replacing(file) as first, atomic.replacing(file) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert file.read_bytes() == b"first"  # the last to finish
    assert os.listdir(file.parent) == ["model.json"]


WRITER = """
import sys, time
from pathlib import Path
from gtp_runtime import atomic
with atomic.replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"other")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(file: Path) -> "subprocess.Popen[str]":
    """Another process in the middle of writing the file."""
    environment = {**os.environ, "PYTHONPATH": str(Path(atomic.__file__).parents[2])}
    command = [sys.executable, "-c", WRITER, str(file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_another_process_writes_stays(file: Path, writer: "subprocess.Popen[str]") -> None:
    atomic.write_bytes(file, b"new")
    assert len(os.listdir(file.parent)) == 2
    writer.communicate("")
    assert writer.returncode == 0
    assert file.read_bytes() == b"other"
    assert os.listdir(file.parent) == ["model.json"]


def test_what_a_killed_process_left_is_swept(file: Path, writer: "subprocess.Popen[str]") -> None:
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    strangers = [".model.json.tmp-mine", ".other.json.tmp-1-1", "model.json.tmp-1-1"]
    for name in strangers:
        (file.parent / name).write_bytes(b"")
    assert len(os.listdir(file.parent)) == 5
    atomic.write_bytes(file, b"new")
    assert sorted(os.listdir(file.parent)) == sorted(["model.json", *strangers])


def test_a_left_name_of_this_process_id_is_no_obstacle(file: Path) -> None:
    name = f".model.json.tmp-{os.getpid()}-"
    for number in range(next(atomic._numbers), next(atomic._numbers) + 5):
        (file.parent / f"{name}{number}").symlink_to("nowhere")  # a link is nothing of ours: never removed
    atomic.write_bytes(file, b"new")
    assert file.read_bytes() == b"new"


def restored(file: Path, before: Callable[[], object] = lambda: None) -> None:
    """Replace a file, and fail then."""
    with atomic.restoring(file):
        before()
        atomic.write_bytes(file, b"new")
        raise RuntimeError


@pytest.mark.parametrize("links", [True, False])
def test_what_fails_is_restored(file: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    if not links:
        monkeypatch.setattr(atomic.os, "link", full)
    with pytest.raises(RuntimeError):
        restored(file)
    assert file.read_bytes() == b"earlier"
    assert os.listdir(file.parent) == ["model.json"]


def test_what_is_kept_stays_though_another_process_holds_the_file(file: Path) -> None:
    other = os.open(file, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(RuntimeError):
        restored(file, lambda: os.close(other))  # a link to the file would be nobody's then, and be swept
    assert file.read_bytes() == b"earlier"
    assert os.listdir(file.parent) == ["model.json"]
