"""What commands write, each as a case that a test kills or fails in the middle; and a process that is killed."""

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from artifacts import TINY
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from small_exports import killed
from small_exports import replace as replace_export
from small_exports import text_of as text_of_export
from steps import counted
from test_tune import outcome, result

from gtp_exporters import ExportOptions, QuantizeOptions, export, quantize
from gtp_exporters.measuring.candidate import Running
from gtp_exporters.measuring.choice import Limit
from gtp_exporters.measuring.outcome import write_outcome
from gtp_exporters.measuring.store import Store
from gtp_exporters.measuring.tune import TuneOptions, tune
from gtp_exporters.report import write_report
from gtp_exporters.tensorrt import engine as engines
from gtp_models import GTPConfig, load_recipe
from gtp_models.recipes import write_recipe
from gtp_runtime import read_manifest
from gtp_runtime.backends.tensorrt import TensorRTBackend
from gtp_runtime.deploy.signing import (
    PrivateKey,
    Trust,
    read_private_key,
    read_public_key,
    sign,
    verify,
    write_key_pair,
)
from gtp_runtime.errors import KeyFileError
from gtp_runtime.manifest import EngineInfo, check_file
from gtp_runtime.model import record
from gtp_runtime.transaction import staged

TEXTS = ("old", "new", "newest")  # what is there, what a killed command writes, what the next one writes
MOVING = "moving"  # an export that counts, and that the next one moves to its place
KEY = PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))


@dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        base: what it works on: "nothing" or "tiny" (an export), beside a folder ``images``.
        write: writes one of ``TEXTS`` to a place.
        state: returns the text of what is whole there, None for nothing, ``MOVING``; fails where it is half-written.
        mend: what the next command does first, where writing takes long; None to write.
        kept: hidden files that are meant to stay.
    """

    base: str
    write: Callable[[Path, str], object]
    state: Callable[[Path], str | None]
    mend: Callable[[Path], None] | None = None
    kept: frozenset[str] = frozenset()


def write_engine(place: Path, text: str) -> None:
    graph = read_manifest(place).entry("model.onnx")
    info = EngineInfo("rtx", "1.3", "model.onnx", graph.sha256, 10, 0.5)
    engines._write(place / "model.engine", text.encode() * 1000, replace(graph, engine=info), info)


def state_of_listed(place: Path, name: str) -> bytes | None:
    """Return a file that the manifest lists, None where it does not; whoever loads it checks it as here."""
    manifest = read_manifest(place)
    if name not in manifest.files:
        assert not (place / name).exists(), "it is there and not listed: the next export would refuse to replace it"
        return None
    check_file(place / name, manifest)
    return (place / name).read_bytes()


def state_of_engine(place: Path) -> str | None:
    plan = state_of_listed(place, "model.engine")
    return plan and plan.decode()[: len(plan) // 1000]


def write_page(place: Path, text: str) -> None:
    record_result(place, text)  # which the page shows
    write_report(place)


def state_of_page(place: Path) -> str | None:
    page = state_of_listed(place, "report.html")
    return page and (state_of_result(place) or "old")


def write_signature(place: Path, text: str) -> None:
    sign(place, KEY, 1 + TEXTS.index(text))


def state_of_signature(place: Path) -> str | None:
    if not (place / "model.sig").exists():
        return None
    return TEXTS[verify(place, Trust((KEY.public,))).signature.version - 1]


def record_result(place: Path, text: str) -> None:
    if not record(place / "model.onnx", read_manifest(place).entry("model.onnx").sha256, "test", {"text": text}):
        raise OSError("not recorded")


def state_of_result(place: Path) -> str | None:
    return read_manifest(place).results.get("test", {}).get("model.onnx", {}).get("text")


def write_thresholds(place: Path, text: str) -> None:
    recipe = load_recipe("digits")
    settings = recipe.settings(sparsity=0.5 + TEXTS.index(text) / 10)
    assert isinstance(settings, GTPConfig)
    write_recipe(recipe, settings, place / "mine.yaml")


def state_of_thresholds(place: Path) -> str | None:
    if not (place / "mine.yaml").exists():
        return None
    settings = load_recipe(str(place / "mine.yaml")).settings()
    assert isinstance(settings, GTPConfig)
    return TEXTS[round(10 * (settings.sparsity - 0.5))]


def write_kernels(place: Path, text: str) -> None:
    backend = object.__new__(TensorRTBackend)
    backend._cache = SimpleNamespace(serialize=lambda: text.encode() * 1000)
    backend._cache_file = place / "model.rtx-cache"
    backend._keep_cache()


def state_of_kernels(place: Path) -> str | None:
    if not (place / "model.rtx-cache").exists():
        return None
    (found,) = (text for text in TEXTS if (place / "model.rtx-cache").read_bytes() == text.encode() * 1000)
    return found


def write_keys(place: Path, text: str) -> None:
    if text == "newest":
        with suppress(KeyFileError):  # it was made before the kill
            write_key_pair(place / "new")
    write_key_pair(place / text)


def state_of_keys(place: Path) -> str | None:
    for path in place.glob("*.key"):
        read_private_key(path)
        assert path.stat().st_mode & 0o777 == 0o600
    for path in place.glob("*.pub"):
        read_public_key(path)
    return next((text for text in reversed(TEXTS) if (place / f"{text}.key").exists()), None)


def state_of_staged(state: Callable[[Path], str | None]) -> Callable[[Path], str | None]:
    return lambda place: MOVING if (place / ".gtp-export" / "done" / "model.json").exists() else state(place)


def write_export(place: Path, text: str) -> None:
    options = ExportOptions(batch=3, simplify=False)
    export(TINY, place, weights="random", seed=TEXTS.index(text), options=options, check=False, report=False)


def state_of_export(place: Path) -> str | None:
    if not (place / "model.json").exists():
        return None
    manifest = read_manifest(place)
    for name in manifest.files:
        check_file(place / name, manifest)
    return TEXTS[int(manifest.weights.detail.removeprefix("seed "))]


def write_int8(place: Path, text: str) -> None:
    size = 16 + TEXTS.index(text)
    quantize(place, QuantizeOptions("onnxruntime", place.parent / "images", calib_size=size, gate=False))


def state_of_int8(place: Path) -> str | None:
    state_of_export(place)
    entry = read_manifest(place).files.get("model.int8.onnx")
    return None if entry is None or entry.quantization is None else TEXTS[entry.quantization.images - 16]


def begin_export(place: Path) -> None:
    """Do what an export begins with: it puts right what an earlier one left."""
    with staged(place):
        pass


def write_trial(place: Path, text: str) -> None:
    place.mkdir(exist_ok=True)
    store = Store(place / "tune.jsonl", {"model": "tiny"})
    number = len(store.values)
    store.keep_results(f"trial {number}", [result(number, 0.1, 0.8, drop=None, why=text)])


def state_of_store(place: Path) -> str | None:
    place.mkdir(exist_ok=True)
    store = Store(place / "tune.jsonl", {"model": "tiny"})
    kept = store.results(list(store.values)[-1]) if store.values else None
    return kept[0].why if kept else None


def write_findings(place: Path, text: str) -> None:
    """Write what a search writes at its end, with a choice that the text is told by."""
    chosen = result(1, 0.005, 0.8, settings=GTPConfig(num_prop=(3, 3), num_neighbours=4 + TEXTS.index(text)).to_dict())
    write_outcome(replace(outcome(TINY, place, Limit(max_drop=4)), chosen=chosen, better=chosen))


def state_of_findings(place: Path) -> str | None:
    """Return the text of the recipe; one that is put aside is the earlier one."""
    json.loads((place / "tune.json").read_bytes())
    assert (place / "tune.html").read_text("utf-8").rstrip().endswith("</html>")
    found = {}
    for path in place.glob("*.yaml"):
        settings = load_recipe(str(path)).settings()
        assert isinstance(settings, GTPConfig)
        found[path.name] = TEXTS[settings.num_neighbours - 4]
    return found.get("recipe.yaml") or found.get("recipe.earlier.yaml")


def write_search(place: Path, text: str) -> None:
    """Search until there are one, two or three trials; nothing is timed for long."""
    running = Running("onnxruntime", {"threads": 1})
    chosen: dict[str, Any] = {"trials": 1 + TEXTS.index(text), "images": 64, "running": running, "timing": 0.0}
    tune(TINY, place, TuneOptions(Limit(max_drop=100), place.parent / "images", **chosen), weights="random")


def state_of_search(place: Path) -> str | None:
    if not (place / "tune.json").exists():
        return None
    return TEXTS[json.loads((place / "tune.json").read_bytes())["trials"] - 1]


QUICK = {
    "build-engine": Case("tiny", write_engine, state_of_engine),
    "report": Case("tiny", write_page, state_of_page),
    "sign": Case("tiny", write_signature, state_of_signature),
    "record": Case("tiny", record_result, state_of_result),
    "calibrate": Case("nothing", write_thresholds, state_of_thresholds),
    "the RTX cache": Case("tiny", write_kernels, state_of_kernels),
    "keygen": Case("nothing", write_keys, state_of_keys),
    "placing an export": Case("nothing", replace_export, state_of_staged(text_of_export)),
    "a trial of tune": Case("nothing", write_trial, state_of_store),
    "what tune found": Case("nothing", write_findings, state_of_findings),
}
SLOW = {
    "export": Case("nothing", write_export, state_of_staged(state_of_export), begin_export),
    "quantize": Case("tiny", write_int8, state_of_staged(state_of_int8), begin_export),
    "tune": Case("nothing", write_search, state_of_search, kept=frozenset({".gtp-export"})),
}
CASES = QUICK | SLOW


def write_case(place: Path, name: str, text: str, step: int) -> None:
    """Write; be killed before a step; if there are fewer, say in ``place.steps`` how many there are."""
    numbers = itertools.count()

    def act(number: int, _: str) -> None:
        next(numbers)
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with counted(act):
        CASES[name].write(place, text)
    place.with_name(f"{place.name}.steps").write_text(str(next(numbers)), encoding="utf-8")


def serve() -> None:
    """Say that all is loaded, then answer lines with the status of a process that ran ``write_case``."""
    print("ready", flush=True)
    for line in sys.stdin:
        number, seconds, place, *arguments = json.loads(line)
        print(killed(number, seconds, write_case, Path(place), *arguments), flush=True)


if __name__ == "__main__":
    serve()
