"""Writing an artifact directory loses nothing of the user's, and leaves the earlier export or the new one, whole."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_exports import NAMES, names_in, replace, text_of, write

from gtp_runtime import load
from gtp_runtime.errors import ManifestError, OutputError
from gtp_runtime.transaction import check_place, listed_files, own, staged

WHOLE = {*NAMES, "model.json"}
WORK = ".gtp-export"


class StoppedError(Exception):
    """What ends an export in these tests."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


@pytest.fixture
def earlier(place: Path) -> Path:
    replace(place, "old")
    return place


def fail(place: Path) -> None:
    """Begin an export there and fail before the commit: what a killed one left must be put right already."""
    with pytest.raises(StoppedError), staged(place):
        raise StoppedError


def test_a_new_directory_is_made(place: Path, tmp_path: Path) -> None:
    replace(place, "new")
    assert (text_of(place), names_in(place)) == ("new", WHOLE)
    assert names_in(tmp_path / "deep") == {"out"}


def test_an_earlier_export_is_replaced(earlier: Path) -> None:
    replace(earlier, "new", ("model.onnx",))
    assert (text_of(earlier), names_in(earlier)) == ("new", {"model.onnx", "model.json"})


def test_the_directory_itself_and_its_parent_are_not_touched(earlier: Path) -> None:
    (earlier.parent / "link").symlink_to("out")
    earlier.chmod(0o750)
    before = earlier.stat(), earlier.parent.stat()
    replace(earlier.parent / "link", "new")
    after = earlier.stat(), earlier.parent.stat()
    assert text_of(earlier) == "new"
    assert (earlier.parent / "link").is_symlink()
    assert [(state.st_ino, state.st_mode) for state in before] == [(state.st_ino, state.st_mode) for state in after]
    assert before[1].st_mtime_ns == after[1].st_mtime_ns, "a parent that cannot be written does not matter"


def test_what_build_engine_and_the_runtime_added_goes_with_the_earlier_export(earlier: Path) -> None:
    write(earlier, "old", (*NAMES, "model.engine"))
    (earlier / "model.rtx-cache").write_bytes(b"kernels")
    (earlier / ".model.json.tmp-1-0").write_bytes(b"of a writer that was killed")
    replace(earlier, "new")
    assert names_in(earlier) == WHOLE


def test_only_what_the_manifest_lists_is_placed(place: Path) -> None:
    with staged(place) as staging:
        write(staging.path, "new")
        (staging.path / "scratch.bin").write_bytes(b"of the proof")
        staging.commit()
    assert names_in(place) == WHOLE


def test_a_real_manifest_is_known(digits: Path) -> None:
    assert own(digits) == names_in(digits) == listed_files(digits)


@pytest.mark.parametrize("proven", [True, False])
def test_without_commit_the_earlier_export_stays(earlier: Path, proven: bool) -> None:
    with staged(earlier) as staging:
        if proven:
            write(staging.path, "new")
            assert text_of(staging.path) == "new"
    assert (text_of(earlier), names_in(earlier)) == ("old", WHOLE)


def test_a_failure_leaves_the_earlier_export_and_no_directory_of_its_own(earlier: Path, tmp_path: Path) -> None:
    fail(earlier)
    assert (text_of(earlier), names_in(earlier)) == ("old", WHOLE)
    fail(tmp_path / "other" / "deep" / "out")
    assert names_in(tmp_path) == {"deep"}
    (tmp_path / "empty").mkdir()
    fail(tmp_path / "empty")
    assert not names_in(tmp_path / "empty"), "it was there before"


@pytest.mark.parametrize("missing", ["model.json", "dense.onnx"])
def test_an_export_that_is_not_whole_is_not_committed(earlier: Path, missing: str) -> None:
    with staged(earlier) as staging:
        write(staging.path, "new")
        (staging.path / missing).unlink()
        with pytest.raises(ValueError, match=f"{missing} is missing"):
            staging.commit()
    assert (text_of(earlier), names_in(earlier)) == ("old", WHOLE)


TENSORFLOW_JS = (
    '{"format": "layers-model", "modelTopology": {}, "weightsManifest": [{"paths": ["group1-shard1of1.bin"]}]}'
)
FOREIGN = {
    "TensorFlow.js": {"model.json": TENSORFLOW_JS, "group1-shard1of1.bin": "w", "thesis.docx": "mine"},
    "no manifest": {"notes.txt": "mine"},
    "an empty manifest": {"model.json": "{}"},
    "no JSON": {"model.json": "mine"},
    "a list": {"model.json": "[1]"},
    "files of another kind": {
        "model.json": '{"schema_version": 1, "model": 0, "weights": 0, "preprocessing": 0, "files": ["notes.txt"]}',
        "notes.txt": "mine",
    },
    "hidden": {".netrc": "mine"},
    "our folder's name": {WORK: "mine"},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=list(FOREIGN))
def test_files_of_the_users_are_refused_and_survive(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(OutputError, match=r"-o") as refusal, staged(tmp_path):
        raise AssertionError("work began")
    assert all(name in str(refusal.value) for name in files)
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "images", "dense.onnx/mine"])
def test_files_of_the_users_beside_an_export_are_refused_and_survive(earlier: Path, name: str) -> None:
    if "/" in name:
        (earlier / "dense.onnx").unlink()
        (earlier / name).parent.mkdir()
    (earlier / name).write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=f"holds other files, .*: {name.partition('/')[0]};"), staged(earlier):
        raise AssertionError("work began")
    assert (earlier / name).read_text("utf-8") == "mine"


def test_many_files_are_not_all_named(tmp_path: Path) -> None:
    for name in "abcde":
        (tmp_path / name).touch()
    with pytest.raises(OutputError, match="a, b, c and 2 more;"), staged(tmp_path):
        pass


def test_a_file_that_the_user_adds_meanwhile_survives(place: Path) -> None:
    with staged(place) as staging:
        write(staging.path, "new")
        (place / "notes.txt").write_text("mine", encoding="utf-8")
        staging.commit()
    assert (text_of(place), names_in(place)) == ("new", {*WHOLE, "notes.txt"})


def test_a_file_that_the_user_adds_in_place_of_ours_survives(place: Path) -> None:
    with staged(place) as staging:
        write(staging.path, "new")
        (place / "model.onnx").write_text("mine", encoding="utf-8")
        with pytest.raises(OutputError, match=r"other files, .*: model\.onnx;"):
            staging.commit()
    assert {path.name: path.read_text("utf-8") for path in place.iterdir()} == {"model.onnx": "mine"}


def test_places_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(place: Path | str, words: str) -> None:
        with pytest.raises(OutputError, match=words), staged(place):
            raise AssertionError("work began")

    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "circle").symlink_to("circle")
    refused(tmp_path / "file", "is a file: -o names the artifact directory")
    refused(tmp_path / "file" / "deep", "cannot write .*deep: .*file is a file")
    refused(tmp_path / "circle" / "out", "cannot write .*circle")
    refused(tmp_path / ("x" * 300), "cannot write .*File name too long; nothing was left behind")
    monkeypatch.setattr(os, "access", lambda *arguments, **_: False)
    refused(tmp_path / "other" / "out", f"{tmp_path} cannot be written: choose another -o")
    assert names_in(tmp_path) == {"file", "circle"}


def test_a_place_that_comes_and_goes_is_no_file(tmp_path: Path) -> None:
    place = tmp_path / "out"

    def churn() -> None:
        while not ended.is_set():
            place.mkdir()
            place.rmdir()

    ended = threading.Event()
    other = threading.Thread(target=churn)
    other.start()
    try:
        for _ in range(10_000):  # asked twice, one in 30 was told that it is a file or cannot be written
            check_place(place)
    finally:
        ended.set()
        other.join()


def test_a_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OutputError, match="out.*-o"), staged("out"):
        pass
    replace(tmp_path / "out", "new")
    fail(tmp_path / "out")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_or_fails(earlier: Path, tmp_path: Path, number: int) -> None:
    words = "cannot write" if number == errno.EIO else "no space left to write"
    for place, state in ((earlier, "the earlier export is unchanged"), (tmp_path / "out", "nothing was left behind")):
        with pytest.raises(OutputError, match=f"{words} {place}.*; {state}"), staged(place):
            raise OSError(number, os.strerror(number))
    assert (text_of(earlier), names_in(tmp_path)) == ("old", {"deep"})


def test_errors_about_other_files_are_not_ours_to_explain(earlier: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staged(earlier):
        (tmp_path / "image.png").read_bytes()
    with pytest.raises(FileNotFoundError), staged(earlier) as staging:  # noqa: PT012
        write(staging.path, "new")
        staging.commit()
        (earlier / "missing").read_bytes()
    assert text_of(earlier) == "new"


def test_what_cannot_be_removed_is_said(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
    with (
        pytest.raises(OutputError, match=f"{WORK} .*removed"),
        staged(earlier),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_cannot_be_replaced(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is a mount point, as containers make them; the next export goes on once it is free."""
    move = os.replace

    def busy(source: Path, target: Path) -> None:
        if target.name == "dense.onnx":
            raise OSError(errno.EBUSY, "Device or resource busy", str(source), None, str(target))
        move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", busy)
        with pytest.raises(OutputError, match=r"busy.*done"):
            replace(earlier, "new")
        with pytest.raises(OutputError, match="busy"):
            replace(earlier, "newer")
    assert text_of(earlier) in (None, "old"), "mixed, or not begun: files are moved in no fixed order"
    fail(earlier)
    assert (text_of(earlier), names_in(earlier)) == ("new", WHOLE)


@pytest.mark.parametrize("moved", ["reference.npz", "model.onnx", "dense.onnx"])
def test_mixed_files_are_refused_when_they_are_loaded(digits_copy: Path, moved: str) -> None:
    """What stands there after a kill in the middle: the earlier manifest, and a file of the new export."""
    (digits_copy / moved).write_bytes((digits_copy / moved).read_bytes() + b"new")
    name = "model.onnx" if moved == "reference.npz" else moved
    with pytest.raises(ManifestError, match=r"sha256 differs"), load(digits_copy / name) as model:
        model.reference()


def test_an_interrupt_while_files_are_moved(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move, moved = os.replace, list[Path]()

    def interrupted(source: Path, target: Path) -> None:
        moved.append(target)
        if len(moved) == 2:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace(earlier, "new")
    assert (text_of(earlier), names_in(earlier)) == ("new", WHOLE)


def test_a_mount_point(tmp_path: Path) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        (place / "lost+found").mkdir()
        for text in ("old", "new"):
            replace(place, text)
            assert (text_of(place), names_in(place)) == (text, {*WHOLE, "lost+found"})
    finally:
        subprocess.run(["umount", str(place)], check=True)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Run a function of small_exports.py in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("small_exports.py")), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


Killed = Callable[..., int]


@pytest.fixture
def killed() -> Iterator[Killed]:
    """``small_exports.killed``, by name of the function."""
    with start("serve") as server:
        assert server.stdin is not None and server.stdout is not None

        def call(*arguments: object) -> int:
            print(json.dumps(arguments, default=str), file=server.stdin, flush=True)
            return int(server.stdout.readline())

        yield call


@pytest.mark.parametrize("old", ["old", None])
def test_killed_before_any_step(tmp_path: Path, old: str | None, killed: Killed) -> None:
    states = []
    for step in range(1000):
        place = tmp_path / f"{step}"
        if old is not None:
            replace(place, old, (*NAMES, "old.engine"))
        if killed(0, 0, "die_at", place, step, "new") == 0:
            break
        states.append(text_of(place))
        mixed = is_mixed(place)
        assert states[-1] in {old, "new"} or mixed, "mixed files, and the next export cannot tell"
        if step % 2:
            replace(place, "newest")
            assert (text_of(place), names_in(place)) == ("newest", WHOLE)
        else:
            place.mkdir(exist_ok=True)
            fail(place)
            assert text_of(place) == ("new" if mixed else states[-1])
            assert names_in(place) == listed_files(place)
    assert len(states) > 20
    assert {old, None, "new"} == set(states)


def is_mixed(place: Path) -> bool:
    """Whether an export was killed while it moved its files."""
    return (place / WORK / "done" / "model.json").exists()


def test_killed_at_any_time(earlier: Path, killed: Killed) -> None:
    chance = random.Random(0)
    last, seen = "old", set()
    for number in range(50):
        given = chance.choice([signal.SIGKILL, signal.SIGHUP])
        assert killed(given, chance.uniform(0, 0.05), "replace_for_ever", earlier, number) == -given
        text, mixed = text_of(earlier), is_mixed(earlier)
        assert mixed or text == last or str(text).startswith(f"{number}.")
        seen.add((mixed, (earlier / WORK).exists()))
        fail(earlier)
        assert mixed or text_of(earlier) == text
        last = str(text_of(earlier))
        assert names_in(earlier) == listed_files(earlier)
    assert len(seen) > 1, "killed in one state only"


def test_a_second_export_is_refused_and_the_first_one_is_not_swept(place: Path) -> None:
    with start("hold", place) as first:
        assert first.stdout is not None and first.stdout.readline() == "ready\n"
        for _ in range(2):
            with pytest.raises(OutputError, match=f"{first.pid} .*{place}"), staged(place):
                raise AssertionError("work began")
        first.communicate("commit\n")
    assert (text_of(place), names_in(place)) == ("held", WHOLE)


@pytest.mark.parametrize("commits", ["commits", "fails"])
def test_racing_exports_are_not_mixed(place: Path, tmp_path: Path, commits: str) -> None:
    processes = [start("race", place, number, commits) for number in range(4)]
    counts = [map(int, process.communicate()[0].split()) for process in processes]
    done, refused = map(sum, zip(*counts, strict=True))
    assert done > 1
    assert refused > 1
    if commits == "commits":
        assert text_of(place) in set("0123")
        assert names_in(place) == WHOLE
    else:
        assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]
