"""Signatures: a changed byte, a file added or taken away, another key and an older export are told apart."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import SEVEN, TINY, Command, python

import gtp_runtime
from gtp_export.console import Verbosity
from gtp_exporters import ExportOptions, OutputError, build_engine, export
from gtp_runtime import read_manifest
from gtp_runtime.deploy.signing import Trust, read_private_key, read_signature, sign, sign_again, verify, write_key_pair
from gtp_runtime.errors import InputError, KeyFileError, ManifestError, SignatureError
from gtp_runtime.loading import load_twin
from gtp_runtime.manifest import FileEntry, file_sha256, write_manifest

pytest.importorskip("cryptography")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of a vendor and of a device."""
    place = tmp_path_factory.mktemp("keys")
    for name in ("vendor", "device"):
        write_key_pair(place / name)
    return place


@pytest.fixture
def signed(digits_copy: Path, keys: Path) -> Path:
    sign(digits_copy, read_private_key(keys / "vendor.key"), 5)
    return digits_copy


def trust(keys: Path, *names: str, **values: Any) -> Trust:
    made = Trust.of([keys / f"{name}.pub" for name in names or ("vendor",)], **values)
    assert made is not None
    return made


def refused(directory: Path, trusted: Trust) -> str:
    with pytest.raises(SignatureError) as caught:
        verify(directory, trusted)
    assert "\n" not in str(caught.value)
    return caught.value.kind


def test_as_it_was_signed(signed: Path, keys: Path) -> None:
    found = verify(signed, trust(keys, "device", "vendor"))
    assert found.manifest == read_manifest(signed)
    assert found.signature.version == 5
    with gtp_runtime.load(signed, trusted_key=keys / "vendor.pub", min_version=5, threads=1) as model:
        assert model.predict(SEVEN)[0].label == "7"
        assert model.validate().ok
        twin = load_twin(model, trusted_key=keys / "vendor.pub")
        assert twin is not None
        twin.close()


def test_every_file_and_many_bytes_of_it(signed: Path, keys: Path) -> None:
    """A changed byte in any file is found, wherever it is."""
    for path in sorted(signed.iterdir()):
        content = path.read_bytes()
        step = max(1, len(content) // 40)
        for place in (*range(0, len(content), step), len(content) - 1):
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(changed)
            kind = refused(signed, trust(keys))
            assert kind in ("changed", "key", "unsigned"), (path, place, kind)
            assert kind == "changed" or path.name == "model.sig"
        path.write_bytes(content)
    verify(signed, trust(keys))


ALTERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file added": (lambda place: (place / "model.rtx-cache").write_bytes(b"kernels"), "added"),
    "a hidden file added": (lambda place: (place / ".x").write_bytes(b""), "added"),
    "a folder added": (lambda place: (place / "more").mkdir(), "added"),
    "a file taken away": (lambda place: (place / "dense.onnx").unlink(), "missing"),
    "a longer file": (lambda place: os.truncate(place / "model.onnx", 1 << 40), "changed"),
    "a file behind a link": (
        lambda place: (
            shutil.move(place / "model.onnx", place.parent / "m"),
            (place / "model.onnx").symlink_to(place.parent / "m"),
        ),
        "changed",
    ),
    "the manifest behind a link": (
        lambda place: (
            shutil.move(place / "model.json", place.parent / "m"),
            (place / "model.json").symlink_to(place.parent / "m"),
        ),
        "changed",
    ),
    "no signature": (lambda place: (place / "model.sig").unlink(), "unsigned"),
    "an empty signature": (lambda place: (place / "model.sig").write_bytes(b""), "changed"),
    "a version raised by hand": (
        lambda place: (place / "model.sig").write_text(
            json.dumps(json.loads((place / "model.sig").read_text("utf-8")) | {"version": 6}), encoding="utf-8"
        ),
        "changed",
    ),
    "a FIFO as signature": (
        lambda place: ((place / "model.sig").unlink(), os.mkfifo(place / "model.sig")),
        "changed",
    ),
    "another manifest that fits the files": (
        lambda place: write_manifest(replace(read_manifest(place), notes=["mine"]), place),
        "changed",
    ),
}


@pytest.mark.parametrize("name", ALTERED)
def test_alterations_are_told_apart(signed: Path, keys: Path, name: str) -> None:
    change, kind = ALTERED[name]
    change(signed)
    assert refused(signed, trust(keys)) == kind
    with pytest.raises(SignatureError):
        gtp_runtime.load(signed, trusted_key=str(keys / "vendor.pub"))


def test_another_key(signed: Path, keys: Path) -> None:
    assert refused(signed, trust(keys, "device")) == "key"


def test_an_older_export_is_not_accepted_again(signed: Path, keys: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(signed, tmp_path / "old"))
    sign(signed, read_private_key(keys / "vendor.key"), 6)
    memory = tmp_path / "version.json"
    assert refused(old, trust(keys, min_version=6)) == "replayed"
    for directory in (old, signed, signed):
        verify(directory, trust(keys, remember=memory))
    assert refused(old, trust(keys, remember=memory)) == "replayed"
    verify(old, trust(keys))
    memory.write_text("no version", encoding="utf-8")
    assert refused(signed, trust(keys, remember=memory)) == "memory"
    memory.unlink()
    memory.mkdir()
    assert refused(signed, trust(keys, remember=memory)) == "memory"


def test_versions_rise(signed: Path, keys: Path) -> None:
    key = read_private_key(keys / "vendor.key")
    for version in (0, -1, 1 << 63, 5, 4):
        with pytest.raises(InputError, match=f"version {version}: "):
            sign(signed, key, version)
    assert read_signature(signed).version == 5


def test_what_is_not_whole_is_not_signed(digits_copy: Path, keys: Path) -> None:
    key = read_private_key(keys / "vendor.key")
    (digits_copy / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(SignatureError, match=r"notes\.txt was added"):
        sign(digits_copy, key, 1)
    (digits_copy / "notes.txt").unlink()
    (digits_copy / "model.onnx").write_bytes(b"other")
    with pytest.raises(SignatureError, match=r"model\.onnx is not"):
        sign(digits_copy, key, 1)
    with pytest.raises(ManifestError):
        sign(digits_copy / "nowhere", key, 1)
    assert not (digits_copy / "model.sig").exists()


def test_nothing_is_recorded_in_a_signed_manifest(command: Command, signed: Path, keys: Path) -> None:
    before = (signed / "model.json").read_bytes()
    ran = command("validate", signed, "-q", "--trusted-key", keys / "vendor.pub")
    assert ran.code == 0, ran.err
    assert "not stored" in ran.err
    ran = command("bench", signed, "--seconds", "0", "--no-footprint", "--json", "--trusted-key", keys / "vendor.pub")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["settings"]["trusted_key"] == str(keys / "vendor.pub")
    assert (signed / "model.json").read_bytes() == before
    verify(signed, trust(keys))


def test_a_new_export_takes_the_place_of_a_signed_one(signed: Path) -> None:
    export(TINY, signed, weights="random", options=ExportOptions(simplify=False, dense=False), check=False)
    assert not (signed / "model.sig").exists()


def test_on_the_command_line(command: Command, digits_copy: Path) -> None:
    assert command("keygen", "vendor").code == 0
    assert os.stat("vendor.key").st_mode & 0o777 == 0o600
    again = command("keygen", "vendor")
    assert (again.code, "never replaced" in again.error) == (1, True)
    assert command("verify", digits_copy, "--trusted-key", "vendor.pub").code == 1
    ran = command("sign", digits_copy, "--key", "vendor.key", "--version", "3")
    assert ran.code == 0, ran.err
    assert ran.last == f"next: gtp-export verify {digits_copy} --trusted-key vendor.pub"
    ran = command("verify", digits_copy, "--trusted-key", "vendor.pub", "--remember", "versions", "--json")
    assert json.loads(ran.out)["version"] == 3
    assert json.loads(Path("versions").read_text("utf-8")) == {"version": 3}
    ran = command("verify", digits_copy, "--trusted-key", "vendor.pub", "--min-version", "4")
    assert (ran.code, "version 3, and 4 or newer" in ran.error) == (1, True)
    for name in ("predict", "validate", "bench"):
        images = [SEVEN] if name == "predict" else []
        ran = command(name, digits_copy, *images, "--trusted-key", "vendor.pub", "--min-version", "4")
        assert (ran.code, "4 or newer" in ran.error) == (1, True)
    ran = command("predict", digits_copy, SEVEN, "--min-version", "3")
    assert (ran.code, "give trusted_key too" in ran.error) == (2, True)
    assert command("sign", digits_copy, "--key", "vendor.key", "--json").code == 0, "the time is a higher version"


def test_key_files(keys: Path, tmp_path: Path) -> None:
    for content in (b"", b"no key", (keys / "vendor.key").read_bytes()):
        (tmp_path / "x.pub").write_bytes(content)
        with pytest.raises(KeyFileError, match="public"):
            Trust.of(tmp_path / "x.pub")
    with pytest.raises(KeyFileError, match="private"):
        read_private_key(keys / "vendor.pub")
    with pytest.raises(KeyFileError, match="nowhere"):
        Trust.of(tmp_path / "nowhere")
    for wrong in (3, [], [None]):
        with pytest.raises(InputError):
            Trust.of(wrong)
    for values in ({"min_version": 1}, {"remember": "x"}):
        with pytest.raises(InputError, match="trusted_key too"):
            Trust.of(None, **values)
    for name in ("/", ".", "a/.."):
        with pytest.raises(KeyFileError):
            write_key_pair(Path(name))
    with pytest.raises(KeyFileError, match="nowhere/x.key"):
        write_key_pair(Path("nowhere/x"))
    assert "PRIVATE" not in repr(read_private_key(keys / "vendor.key"))


def test_without_cryptography(signed: Path, keys: Path) -> None:
    code = "sys.modules['cryptography'] = None; from gtp_export.cli import main; sys.argv[1:] = {}; main()"
    arguments = ["verify", str(signed), "--trusted-key", str(keys / "vendor.pub")]
    ran = python(code.format(arguments))
    assert (ran.code, ran.err) == (4, "error: cryptography is not installed: pip install 'gtp-export[sign]'\n")
    assert python(code.format(["predict", str(signed), str(SEVEN)])).code == 0, "needed only where a key is demanded"


class OpenedError(Exception):
    """An engine was given to TensorRT."""


@pytest.fixture
def with_engine(digits_copy: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A signed directory with an engine; to open one is an error."""

    def opened(*arguments: object) -> None:
        raise OpenedError

    plan = digits_copy / "model.engine"
    plan.write_bytes(b"plan")
    manifest = read_manifest(digits_copy)
    entry: FileEntry = replace(manifest.entry("model.onnx"), sha256=file_sha256(plan), size=4)
    write_manifest(replace(manifest, files=manifest.files | {plan.name: entry}), digits_copy)
    sign(digits_copy, read_private_key(keys / "vendor.key"), 1)
    monkeypatch.setattr("gtp_runtime.backends.tensorrt.backend.TensorRTBackend.__init__", opened)
    return digits_copy


def test_an_engine_that_cannot_be_trusted_is_never_opened(with_engine: Path, keys: Path) -> None:
    engine, key = with_engine / "model.engine", keys / "vendor.pub"
    with pytest.raises(OpenedError):
        gtp_runtime.load(engine, trusted_key=key)
    with pytest.raises(InputError, match="keep_kernels=True: .*trusted_key"):
        gtp_runtime.load(engine, trusted_key=key, keep_kernels=True)
    (with_engine / "model.rtx-cache").write_bytes(b"kernels")
    with pytest.raises(SignatureError, match=r"model\.rtx-cache was added"):
        gtp_runtime.load(engine, trusted_key=key)
    (with_engine / "model.rtx-cache").unlink()
    engine.write_bytes(b"PLAN")
    for directory in (engine, with_engine / "model.onnx"):
        with pytest.raises(SignatureError, match=r"model\.engine is not"):
            gtp_runtime.load(directory, trusted_key=key)


def test_an_engine_built_on_the_device_is_signed_by_the_device(
    signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor, device = keys / "vendor.pub", keys / "device.key"
    with pytest.raises(OutputError, match=r"signed, .*--trusted-key FILE"):
        build_engine(signed)
    with pytest.raises(OutputError, match="--trusted-key FILE"):
        build_engine(signed, key=device)
    with pytest.raises(SignatureError, match="key"):
        build_engine(signed, key=device, trusted_key=keys / "device.pub")
    sign_again(signed, read_private_key(device), read_signature(signed).version)
    assert refused(signed, trust(keys)) == "key"
    verify(signed, trust(keys, "vendor", "device"))
    (signed / "model.sig").unlink()
    with pytest.raises(OutputError, match="leave out --key"):
        build_engine(signed, key=device, trusted_key=vendor)


def test_building_signs_anew(signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(Verbosity, "quiet", True)
    built = build_engine(signed, flavor="rtx", key=keys / "device.key", trusted_key=keys / "vendor.pub")
    assert built.path.exists()
    found = verify(signed, trust(keys, "device"))
    assert "model.engine" in found.manifest.files
    assert found.signature.version == 5
