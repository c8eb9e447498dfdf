"""Runs the runtime for long, as an edge box does: threads, loads, deadlines, forks; equal answers, and nothing grows.

    python benchmarks/soak.py DIR [--backend onnxruntime] [--runs 100000] [--threads 8] [--loads 1000] [--stops 1000]
                              [--output benchmarks/results/soak.json]

Writes what it measured to OUTPUT under the backend's name; exit code 1 if a limit is missed. A phase whose count is 0
is left out, and keeps the earlier result. Memory is the resident set of the process (Linux). Each phase is measured
from a tenth of its work on, when pools and caches are filled.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from gtp_runtime import Model, load
from gtp_runtime.errors import DeadlineError, GTPRuntimeError

GROWTH_MIB = 16.0  # limit of each phase
IMAGES = 16  # different inputs
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE / 2**20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def workers() -> int:
    """Count threads; a deadline's timer that was cancelled ends a moment later."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)
    return threading.active_count()


def measured(count: int, work: Callable[[int], int]) -> dict[str, Any]:
    """Do the work, a tenth of it before the measurement; it returns the number of wrong answers."""
    start, wrong = time.perf_counter(), work(max(1, count // 10))
    memory, files, threads = resident_mib(), descriptors(), workers()
    wrong += work(count - max(1, count // 10))
    return {
        "count": count,
        "seconds": round(time.perf_counter() - start, 1),
        "wrong": wrong,
        "resident_mib": round(resident_mib(), 1),
        "growth_mib": round(resident_mib() - memory, 2),
        "descriptors_growth": descriptors() - files,
        "threads_growth": workers() - threads,
    }


def inputs_of(model: Model) -> list[np.ndarray]:
    images = model.prepare(model.reference().images[:IMAGES])
    return [np.resize(image, model.entry.inputs[0].shape) for image in images]


def in_threads(models: list[Model], runs: int, threads: int) -> int:
    """Share the runs among threads, which take the models in turn; return how many answers differ from one thread's."""
    cases = [(model, images, model.run(images)) for model in models for images in inputs_of(model)]

    def one(number: int) -> int:
        model, images, expected = cases[number % len(cases)]
        return int(not np.array_equal(model.run(images), expected))

    with ThreadPoolExecutor(threads) as pool:
        blocks = range(0, runs, 1000)  # so that no list of all futures grows
        return sum(sum(pool.map(one, range(start, min(start + 1000, runs)))) for start in blocks)


def load_again(directory: Path, backend: str, count: int) -> int:
    """Load, run once and close; return how many answers differ from the first."""
    expected, wrong = answer(directory, backend), 0
    for _ in range(count):
        wrong += int(not np.array_equal(answer(directory, backend), expected))
    return wrong


def answer(directory: Path, backend: str) -> np.ndarray:
    with load(directory / "model.onnx", backend, threads=1) as model:
        return model.run(inputs_of(model)[0])


def stop_again(model: Model, count: int) -> int:
    """Stop runs by a deadline; return how many of the runs after that differ."""
    images, wrong = inputs_of(model)[0], 0
    expected = model.run(images)
    for _ in range(count):
        try:
            model.run(images, timeout=1e-4)
        except DeadlineError:
            wrong += int(not np.array_equal(model.run(images), expected))
    return wrong


def selftest(model: Model) -> dict[str, Any]:
    """Replay the parity pack as at start-up."""
    start = time.perf_counter()
    parity = model.selftest()
    return {"images": parity.images, "seconds": round(time.perf_counter() - start, 2)}


def in_child(directory: Path, backend: str, method: str) -> dict[str, Any]:
    """Load in a child process; say whether it answers as this process does."""
    expected = answer(directory, backend)
    with multiprocessing.get_context(method).Pool(1) as pool:
        actual = pool.apply_async(answer, (directory, backend)).get(120)
    return {"method": method, "equal": bool(np.array_equal(actual, expected))}


def refused_after_fork(model: Model) -> bool:
    """Whether a child that inherits a model is told so instead of being left to hang."""
    child = os.fork()
    if child == 0:
        try:
            model.run(model.sample())
        except GTPRuntimeError:
            model.close()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def soak(directory: Path, backend: str, runs: int, threads: int, loads: int, stops: int) -> dict[str, Any]:
    """Do it all, but phases whose count is 0."""
    with (
        load(directory / "model.onnx", backend, threads=1) as model,
        load(directory / "dense.onnx", backend, threads=1) as dense,
    ):
        work: dict[str, tuple[int, Callable[[int], int]]] = {
            "threads_on_one_model": (runs, lambda count: in_threads([model], count, threads)),
            "threads_on_two_models": (runs // 10, lambda count: in_threads([model, dense], count, threads)),
            "deadlines": (stops, lambda count: stop_again(model, count)),
            "loads": (loads, lambda count: load_again(directory, backend, count)),
        }
        tested = selftest(model)
        phases = {name: measured(*phase) for name, phase in work.items() if phase[0]}
        refused, info = refused_after_fork(model), {"name": model.backend.name, **model.backend.info}
    children = [in_child(directory, backend, method) for method in ("fork", "spawn")]
    kept = {"backend": info, "threads": threads, "limit_growth_mib": GROWTH_MIB, "children": children}
    return {**kept, "inherited_model_refused": refused, "selftest": tested, "phases": phases}


def is_ok(report: dict[str, Any]) -> bool:
    """Whether every answer was equal, and nothing grew."""
    children = all(child["equal"] for child in report["children"]) and report["inherited_model_refused"]
    return children and all(map(is_steady, report["phases"].values()))


def is_steady(phase: dict[str, Any]) -> bool:
    still = not phase["wrong"] and phase["descriptors_growth"] <= 0 and phase["threads_growth"] <= 0
    return still and phase["growth_mib"] <= GROWTH_MIB


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--backend", default="onnxruntime")
    for name, count in (("runs", 100_000), ("threads", 8), ("loads", 1000), ("stops", 1000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/soak.json"))
    given = vars(parser.parse_args())
    output, backend = given.pop("output"), given["backend"]
    report = soak(**given)
    written = json.loads(output.read_text("utf-8")) if output.exists() else {}
    earlier = written.get(backend, {}).get("phases", {})
    report = {**report, "phases": {**earlier, **report["phases"]}}
    machine = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version()}
    written[backend] = {"ok": is_ok(report), **machine, **report}
    output.write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    print(json.dumps(written[backend], indent=1))
    sys.exit(not is_ok(report))


if __name__ == "__main__":
    main()
