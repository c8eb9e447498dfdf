"""``gtp-export install``: a proven export takes the place of the deployed one in one step, or nothing happens."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_installs
from artifacts import ROOT, SEVEN, Command, python
from onnx import numpy_helper
from test_cli import document

import gtp_runtime
from gtp_runtime import __main__ as runtime_command
from gtp_runtime import install, read_manifest, rollback
from gtp_runtime.deploy import store
from gtp_runtime.deploy.signing import read_private_key, sign, write_key_pair
from gtp_runtime.errors import BudgetMissedError, InputError, InstallError, ManifestError, SelfTestError, SignatureError
from gtp_runtime.manifest import file_sha256, write_manifest

QUICK: dict[str, Any] = {"seconds": 0, "threads": 1}


def renamed(digits: Path, place: Path, note: str) -> Path:
    """Copy an export and give it a note, which tells it from others."""
    shutil.copytree(digits, place)
    write_manifest(replace(read_manifest(place), notes=[note]), place)
    return place


@pytest.fixture
def old(digits: Path, tmp_path: Path) -> Path:
    return renamed(digits, tmp_path / "old", "old")


@pytest.fixture
def new(digits: Path, tmp_path: Path) -> Path:
    return renamed(digits, tmp_path / "new", "new")


@pytest.fixture
def wrong(digits: Path, tmp_path: Path) -> Path:
    """An export whose graph has other weights than its parity pack."""
    place = renamed(digits, tmp_path / "wrong", "wrong")
    proto = onnx.load(place / "model.onnx")
    largest = max(proto.graph.initializer, key=lambda value: len(value.raw_data))
    largest.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(largest), largest.name))
    onnx.save(proto, place / "model.onnx")
    manifest, file = read_manifest(place), place / "model.onnx"
    entry = replace(manifest.files[file.name], sha256=file_sha256(file), size=file.stat().st_size)
    write_manifest(replace(manifest, files={**manifest.files, file.name: entry}), place)
    return place


def note_of(target: Path) -> str:
    with gtp_runtime.load(target, threads=1) as model:
        assert model.predict(SEVEN, topk=1)[0].label == "7"
        return model.manifest.notes[0]


def versions(target: Path) -> list[str]:
    return sorted(path.name for path in (target.parent / f".{target.name}.installed").iterdir())


def test_installs_updates_and_goes_back(old: Path, new: Path, tmp_path: Path) -> None:
    target, source = tmp_path / "app" / "vit", (old / "model.json").read_bytes()
    done = install(old, target, **QUICK)
    assert (done.target, done.previous, note_of(target)) == (target, None, "old")
    assert done.proof.parity.ok and done.proof.latency.runs >= 10
    assert read_manifest(target).results["latency"]["model.onnx"]["provider"] == "cpu"
    assert (old / "model.json").read_bytes() == source
    updated = install(new, target, budget_ms=1e6, **QUICK)
    assert (updated.previous, note_of(target)) == (done.directory, "new")
    assert versions(target) == sorted([done.directory.name, updated.directory.name])
    back = rollback(target, **QUICK)
    assert (back.directory, back.previous, note_of(target)) == (done.directory, None, "old")
    with pytest.raises(InstallError):
        rollback(target, **QUICK)
    install(new, target, **QUICK)
    assert note_of(target) == "new"
    assert len(versions(target)) == 2


def test_what_fails_its_parity_pack_changes_nothing(old: Path, wrong: Path, tmp_path: Path) -> None:
    target = tmp_path / "vit"
    with pytest.raises(SelfTestError, match=r"^model\.onnx fails .*onnxruntime: ") as caught:
        install(wrong, target, **QUICK)
    assert not caught.value.parity.ok
    assert {path.name for path in tmp_path.iterdir()} == {"old", "wrong"}
    install(old, target, **QUICK)
    before = versions(target)
    with pytest.raises(SelfTestError):
        install(wrong, target, **QUICK)
    with pytest.raises(BudgetMissedError, match=r"\(p50, onnxruntime\), .*1e-06 ms"):
        install(old, target, budget_ms=1e-6, **QUICK)
    assert (note_of(target), versions(target)) == ("old", before)


def test_what_a_rollback_left_stays_until_another_export_is_proven(
    old: Path, new: Path, wrong: Path, tmp_path: Path
) -> None:
    target = tmp_path / "vit"
    first, left = install(old, target, **QUICK).directory, install(new, target, **QUICK).directory
    rollback(target, **QUICK)
    with pytest.raises(SelfTestError):
        install(wrong, target, **QUICK)
    assert versions(target) == sorted([first.name, left.name])
    assert install(new, target, **QUICK).previous == first
    assert left.name not in versions(target)


def test_a_damaged_export_is_refused_before_it_runs(old: Path, digits: Path, tmp_path: Path) -> None:
    (old / "dense.onnx").write_bytes((digits / "dense.onnx").read_bytes()[:-1] + b"x")
    with pytest.raises(ManifestError, match="sha256 differs"):
        install(old, tmp_path / "vit", **QUICK)
    (old / "dense.onnx").write_bytes(bytes(1 << 23))
    with pytest.raises(ManifestError, match="cannot copy .* bytes"):
        install(old, tmp_path / "vit", **QUICK)
    with pytest.raises(ManifestError):
        install(tmp_path, tmp_path / "vit", **QUICK)
    assert not (tmp_path / ".vit.installed").exists()


def test_files_that_are_not_there_are_left_out(old: Path, tmp_path: Path) -> None:
    (old / "dense.onnx").unlink()
    (old / "notes.txt").write_text("mine", "utf-8")
    install(old, tmp_path / "vit", **QUICK)
    assert {path.name for path in (tmp_path / "vit").iterdir()} == {
        *("model.onnx", "model.json", "reference.npz", "report.html")
    }


def test_a_folder_becomes_the_last_good_export(old: Path, new: Path, tmp_path: Path) -> None:
    target = tmp_path / "vit"
    shutil.copytree(old, target)
    try:
        done = install(new, target, **QUICK)
    except InstallError as error:
        pytest.skip(f"this file system exchanges no folders: {error}")
    assert target.is_symlink() and note_of(target) == "new"
    assert done.previous is not None and {path.name for path in done.previous.iterdir()} == {
        path.name for path in old.iterdir()
    }
    rollback(target, **QUICK)
    assert note_of(target) == "old"


def test_a_folder_that_cannot_be_exchanged_stays(
    old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(one: Path, other: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(store, "exchange", refuse)
    with pytest.raises(InstallError, match=r"old is a folder, .*Invalid cross-device link"):
        install(new, old, **QUICK)
    assert not old.is_symlink() and note_of(old) == "old"
    assert not (tmp_path / ".old.installed").exists()


def test_nothing_to_go_back_to_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InstallError):
        rollback(tmp_path / "no" / "vit")
    assert not list(tmp_path.iterdir())


def test_without_renameat2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name, use_errno: object())
    with pytest.raises(OSError, match="renameat2"):
        store.exchange(tmp_path, tmp_path)


def test_files_of_the_user_are_never_moved_or_removed(old: Path, new: Path, tmp_path: Path) -> None:
    (old / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(InstallError, match=r"old .*mine\.txt; move"):
        install(new, old, **QUICK)
    (tmp_path / "file").write_text("mine", "utf-8")
    with pytest.raises(InstallError, match="file"):
        install(new, tmp_path / "file", **QUICK)
    target = tmp_path / "vit"
    first = install(new, target, **QUICK).directory
    (target / "mine.txt").write_text("mine", "utf-8")
    install(new, target, **QUICK)
    install(new, target, **QUICK)
    assert (first / "mine.txt").read_text("utf-8") == "mine"


def test_a_link_of_the_user_is_followed(old: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "vit"
    link.symlink_to("data/vit")
    done = install(old, link, **QUICK)
    assert (done.target, os.readlink(link)) == (tmp_path / "data" / "vit", "data/vit")
    assert note_of(link) == "old"
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(InstallError, match="circle"):
        install(old, tmp_path / "circle", **QUICK)


def test_one_install_at_a_time(old: Path, tmp_path: Path) -> None:
    other = store.Store(tmp_path / "vit")
    with other.held():
        other.new.mkdir()
        with pytest.raises(InstallError):
            install(old, tmp_path / "vit", **QUICK)
        assert other.new.exists()


def test_a_place_that_cannot_be_written(old: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(InstallError, match="Not a directory; .* writable"):
        install(old, tmp_path / "file" / "vit", **QUICK)
    with pytest.raises(InstallError):
        install(old, "/", **QUICK)


@pytest.mark.parametrize("budget", [0, -1, "5", True, np.nan])
def test_an_invalid_budget(old: Path, tmp_path: Path, budget: Any) -> None:
    with pytest.raises(InputError, match="budget_ms="):
        install(old, tmp_path / "vit", budget_ms=budget, **QUICK)


def test_signed_exports(old: Path, new: Path, tmp_path: Path) -> None:
    private, public = write_key_pair(tmp_path / "vendor")[:2]
    key, memory, target = read_private_key(private), tmp_path / "memory", tmp_path / "vit"
    trust = {"trusted_key": public, "remember": memory, **QUICK}
    with pytest.raises(SignatureError):
        install(old, target, **trust)
    sign(old, key, 1)
    sign(new, key, 2)
    install(old, target, **trust)
    install(new, target, **trust)
    assert not memory.exists(), "the application remembers, once it loads"
    assert (target / "model.json").read_bytes() == (new / "model.json").read_bytes(), "still as it was signed"
    gtp_runtime.load(target, trusted_key=public, remember=memory).close()
    with pytest.raises(SignatureError, match="version 1, .*2 or newer"):
        rollback(target, **trust)
    assert note_of(target) == "new"


def test_a_loaded_model_outlives_updates_and_loads_never_mix(old: Path, new: Path, tmp_path: Path) -> None:
    target, seen, stop = tmp_path / "vit", Counter[str](), threading.Event()
    install(old, target, **QUICK)

    def load_again() -> None:
        while not stop.is_set():
            seen[note_of(target)] += 1

    with gtp_runtime.load(target, threads=1) as model:
        worker = threading.Thread(target=load_again)
        worker.start()
        expected = model.run(model.sample())
        for source in (new, old, new):
            install(source, target, **QUICK)
            assert np.array_equal(model.run(model.prepare(np.zeros((1, 32, 32, 3), np.uint8))).shape, expected.shape)
        stop.set()
        worker.join()
    assert set(seen) == {"old", "new"}
    assert model.path.parent != target, "a loaded model says which export it is of"


@pytest.mark.parametrize("start", ["first", "update", "adopt", "rollback"])
@pytest.mark.parametrize("mode", ["die", "refuse"])
def test_whatever_call_fails_the_target_is_whole(digits: Path, tmp_path: Path, start: str, mode: str) -> None:
    paths = os.pathsep.join(str(ROOT / name) for name in ("runtime", "tests"))
    ran = subprocess.run(
        [sys.executable, small_installs.__file__, "each_step", digits, tmp_path / "work", start, mode],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    before, after = {"first": (None, "new"), "rollback": ("new", "old")}.get(start, ("old", "new"))
    assert len(found) > 5
    assert found.pop()[:2] == [3, after]
    for status, left, repaired, kept in found:
        assert status in ((-9,) if mode == "die" else (0, 1)), ran.stderr
        assert left in (before, after)
        assert left == (after if status == 0 else left)
        assert (repaired, kept) == ("last", 1 if left is None else 2)


def test_the_runtime_is_enough(old: Path, tmp_path: Path) -> None:
    ran = python(
        f"import gtp_runtime; gtp_runtime.install({str(old)!r}, {str(tmp_path / 'vit')!r}, seconds=0); "
        "print({name.partition('.')[0] for name in sys.modules} & {'torch', 'timm', 'onnx', 'gtp_models', 'typer'})"
    )
    assert (ran.code, ran.out.strip()) == (0, "set()"), ran.err


def test_the_command(command: Command, old: Path, wrong: Path, tmp_path: Path) -> None:
    target = tmp_path / "vit"
    quick = ("--seconds", "0", "--threads", "1")
    found = document(command("install", old, target, "--json", *quick))
    assert (found["target"], found["previous"], found["file"]) == (str(target), None, "model.onnx")
    assert found["parity"]["ok"] and found["backend"]["name"] == "onnxruntime"
    ran = command("install", wrong, target, *quick)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines()[-1].startswith("error: model.onnx fails its self-test with onnxruntime: ")
    assert command("install", old, target, "--budget-ms", "1e-6", *quick).code == 5
    ran = command("install", old, target, *quick)
    assert ran.code == 0, ran.err
    assert "parity ok on 360 images, p50 " in ran.out
    assert ran.last == f"next: gtp-export predict {target} IMAGE"
    assert f"gtp-export install --rollback {target} goes back" in ran.out
    assert command("install", "--rollback", target, *quick).code == 0
    assert command("install", "--rollback", target, *quick).code == 1
    for arguments in ([old], [old, target, target], ["--rollback", old, target]):
        assert command("install", *arguments).code == 2


def test_the_command_of_the_runtime(
    old: Path, wrong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_command.LOG, "handlers", [])
    target, quick = str(tmp_path / "vit"), ("--seconds", "0", "--threads", "1")
    assert runtime_command.main(["install", str(old), target, *quick]) == 0
    assert f"{target} is " in capsys.readouterr().out
    assert runtime_command.main(["install", str(wrong), target, *quick, "--log-json"]) == 3
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (lines[-1]["level"], lines[-1]["logger"]) == ("error", "gtp_runtime")
    assert lines[-1]["message"].startswith("model.onnx fails its self-test")
    assert runtime_command.main(["install", str(old), target, *quick, "--budget-ms", "1e-6"]) == 5
    assert runtime_command.main(["install", "--rollback", target, *quick]) == 1
    assert runtime_command.main(["install", str(old), target, *quick, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["previous"]
    assert runtime_command.main(["install", "--rollback", target, *quick]) == 0
    with pytest.raises(SystemExit, match="2"):
        runtime_command.main(["install", target])
