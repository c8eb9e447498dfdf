"""From an ONNX model to a serialised engine: all that calls TensorRT's parser, builder and inspector.

A build shows how far it is, and Ctrl-C stops it.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from gtp_exporters.errors import EngineError, LimitError
from gtp_exporters.graph import files as graphs
from gtp_exporters.options import MAX_TOPK
from gtp_runtime.atomic import write_bytes
from gtp_runtime.backends.tensorrt.flavor import Flavor, make_logger
from gtp_runtime.manifest import BatchRange
from gtp_runtime.messages import Progress

OPT_LEVELS = range(6)
# what to do, by operator
REMEDIES = {
    "ScatterElements": "scatter with a reduction is not supported: use a method without it (gtp)",
    "TopK": f"its k must be constant and at most {MAX_TOPK}: sparsity 1.0, or fewer tokens",
    "QuantizeLinear": "zero points must be 0 and types int8 or fp8: quantise symmetrically",
    "DequantizeLinear": "zero points must be 0 and types int8 or fp8: quantise symmetrically",
    "Attention": "export attention as separate products: opset 20",
}
GENERAL = "export again with gtp-export, whose static check finds unsupported operators"


@dataclass(frozen=True)
class EngineOptions:
    """How to build.

    Attributes:
        workspace: MiB of workspace memory that a layer may use (default: TensorRT's).
        opt_level: builder optimization level, 0 to 5 (default: TensorRT's, 3).
        timing_cache: a file with kernel timings, reused by later builds; full TensorRT only.
        targets: compute capabilities to build for ahead of time, ("sm86", …); RTX only.
        opt_batch: for a graph that takes a range of batches, the images of a run that kernels are chosen for (default:
            the most).
    """

    workspace: int | None = None
    opt_level: int | None = None
    timing_cache: Path | None = None
    targets: tuple[str, ...] = ()
    opt_batch: int | None = None

    def __post_init__(self) -> None:
        if self.opt_level is not None and self.opt_level not in OPT_LEVELS:
            raise LimitError(f"opt_level={self.opt_level}: give {OPT_LEVELS[0]} to {OPT_LEVELS[-1]}")
        if self.workspace is not None and self.workspace < 1:
            raise LimitError(f"workspace {self.workspace} MiB: give at least 1, or leave it to TensorRT")


@dataclass(frozen=True)
class BuiltEngine:
    """A serialised engine, the number of layers of the parsed network, and the build time in seconds."""

    plan: bytes
    layers: int
    seconds: float


def build(
    flavor: Flavor, model: ir.Model, options: EngineOptions, progress: Progress, batch: BatchRange | None = None
) -> BuiltEngine:
    """Build an ONNX model.

    Args:
        flavor: the TensorRT that builds.
        model: the graph.
        options: how to build.
        progress: called with the running phase and the share done.
        batch: how many images a run takes, where the first axis is free.

    Raises:
        EngineError: TensorRT cannot parse or build it.
        LimitError: options that this flavour does not have, or a timing cache that cannot be read.
        KeyboardInterrupt: Ctrl-C, after the current build step.
    """
    logger = make_logger(flavor.trt)
    builder = flavor.trt.Builder(logger)
    if builder is None:
        raise EngineError(f"TensorRT does not start: {'; '.join(logger.errors) or 'no reason given'}")
    config = builder.create_builder_config()
    _configure(flavor, config, options)
    cache = _load_timing_cache(flavor, config, options.timing_cache)
    parsed = parse(flavor, builder, model, logger)
    if batch is not None:
        _add_profile(builder, config, parsed.network, batch, options.opt_batch or batch.max)
    start = time.perf_counter()
    with stoppable() as stop:
        _monitor = watch(flavor.trt, config, progress, stop)
        plan = builder.build_serialized_network(parsed.network, config)
    if plan is None:
        raise EngineError("TensorRT cannot build the graph:\n  " + "\n  ".join(logger.errors or ["no reason given"]))
    if cache is not None and options.timing_cache is not None:
        with suppress(OSError):  # a cache that cannot be kept costs only the next build's time
            _save_timing_cache(config, options.timing_cache)
    return BuiltEngine(bytes(plan), parsed.network.num_layers, time.perf_counter() - start)


def _configure(flavor: Flavor, config: Any, options: EngineOptions) -> None:
    trt = flavor.trt
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the inspector can name layers
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
    if options.opt_level is not None:
        config.builder_optimization_level = options.opt_level
    if options.targets:
        _set_targets(flavor, config, options.targets)


def _set_targets(flavor: Flavor, config: Any, targets: tuple[str, ...]) -> None:
    if not flavor.is_rtx:
        raise LimitError(f"--target {','.join(targets)}: only TensorRT-RTX builds ahead of time (--flavor rtx)")
    known = {name.lower(): kind for name, kind in flavor.trt.ComputeCapability.__members__.items() if name[:2] == "SM"}
    unknown = [name for name in targets if name not in known]
    if unknown:
        raise LimitError(f"TensorRT-RTX has no target {', '.join(unknown)}: it has {', '.join(sorted(known))}")
    config.num_compute_capabilities = len(targets)
    for index, name in enumerate(targets):
        if not config.set_compute_capability(known[name], index):
            raise EngineError(f"TensorRT-RTX refuses the target {name}")


def check_batch(batch: BatchRange | None, opt_batch: int | None) -> None:
    """Raise ``LimitError`` for an ``opt_batch`` that a graph with this range, or with one number, does not take."""
    if opt_batch is None:
        return
    if batch is None:
        raise LimitError("opt_batch is for graphs that take a range of batches: leave it out, or export with -b 1..16")
    if opt_batch not in batch:
        raise LimitError(f"opt_batch={opt_batch}: the graph takes {batch} images")


def _add_profile(builder: Any, config: Any, network: Any, batch: BatchRange, best: int) -> None:
    """Say which numbers of images the first axis stands for, and which one kernels are chosen for."""
    profile, images = builder.create_optimization_profile(), network.get_input(0)
    shapes = [(size, *tuple(images.shape)[1:]) for size in (batch.min, best, batch.max)]
    profile.set_shape(images.name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT refuses batches of {batch}, best {best}")


def _load_timing_cache(flavor: Flavor, config: Any, path: Path | None) -> Any:
    """RTX measures nothing while building, so it has none; a cache of another TensorRT is passed over."""
    if path is None or flavor.is_rtx:
        return None
    cache = config.create_timing_cache(_read_timing_cache(path))
    if cache is None:
        cache = config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, False):
        return None
    return cache


def _read_timing_cache(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise LimitError(f"timing cache {path}: {error.strerror}; give another file (--timing-cache)") from error


def _save_timing_cache(config: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, bytes(memoryview(config.get_timing_cache().serialize())))


@dataclass(frozen=True)
class Parsed:
    """A network and the parser that owns its weights: both must live until the engine is built."""

    network: Any
    parser: Any


def parse(flavor: Flavor, builder: Any, model: ir.Model, logger: Any) -> Parsed:
    """Return the strongly typed network of an ONNX graph.

    Raises:
        EngineError: names every node that the parser refuses, and what to do.
    """
    network = builder.create_network(flavor.network_flags())
    parser = flavor.trt.OnnxParser(network, logger)
    if _parse(parser, model):
        return Parsed(network, parser)
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    findings = [*translate(errors, model.graph), *_unknown(parser, model.graph)]
    raise EngineError("TensorRT cannot parse the graph:\n  " + "\n  ".join(findings or [GENERAL]))


def _parse(parser: Any, model: ir.Model) -> bool:
    """Hand a graph over in memory, or as a file where protobuf cannot hold its weights."""
    if graphs.weight_bytes(model) <= graphs.EXTERNAL_ABOVE:
        return parser.parse(graphs.serialized(model))
    with graphs.on_disk(model) as path:
        return parser.parse_from_file(str(path))


def translate(errors: list[Any], graph: ir.Graph) -> Iterator[str]:
    """Yield one line a parser error: the nodes, TensorRT's words, what to do.

    The parser stops at its first error and does not always name a node; then the name of its function
    (importScatterElements) tells the operator, and all nodes of that kind are named.
    """
    for error in errors:
        operator = error.node_operator() or error.func().removeprefix("import")
        names = [error.node_name()] if error.node_name() else _names(graph, operator)
        words = " ".join(error.desc().split())
        where = f"{operator} {', '.join(names)}" if names else f"node {error.node()}"
        yield f"{where}: {words}; {REMEDIES.get(operator, GENERAL)}"


def _names(graph: ir.Graph, operator: str) -> list[str]:
    return [repr(node.name or node.outputs[0].name) for node in graph if node.op_type == operator]


def _unknown(parser: Any, graph: ir.Graph) -> Iterator[str]:
    """Name the operators that the parser does not know at all, also those after its first error."""
    for operator in sorted({node.op_type for node in graph}):
        if not parser.supports_operator(operator):
            names = ", ".join(_names(graph, operator))
            yield f"{operator} {names}: this TensorRT does not know the operator; {REMEDIES.get(operator, GENERAL)}"


def inspect_plan(flavor: Flavor, plan: bytes) -> tuple[int | None, dict[str, Any] | None]:
    """Return an engine's device memory in bytes and TensorRT's description of its layers; None without a device."""
    engine = flavor.trt.Runtime(make_logger(flavor.trt)).deserialize_cuda_engine(plan)
    if engine is None:
        return None, None
    memory = getattr(engine, "device_memory_size_v2", None)
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(flavor.trt.LayerInformationFormat.JSON)
    return memory, json.loads(text)


class Stop:
    """The signal by which somebody asked to stop; TensorRT looks for it after every step.

    Python's own handlers wait until TensorRT gives the main thread back, so the signal is read from the pipe into which
    Python writes it at once (``signal.set_wakeup_fd``). An exception could not pass through TensorRT's code either.
    """

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe, self._asked = pipe, 0

    @property
    def asked(self) -> int:
        """The number of the signal; 0 while there was none."""
        if not self._asked and self._pipe is not None:
            with suppress(BlockingIOError):
                self._asked = os.read(self._pipe, 1)[0]
        return self._asked


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within, Ctrl-C and SIGTERM are kept in ``Stop``; afterwards they end the program as they would have."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield Stop()
        return
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    stop, former = Stop(reading), signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
        asked = stop.asked
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former)
        os.close(reading)
        os.close(writing)
    if asked == signal.SIGINT:
        raise KeyboardInterrupt
    if asked:
        raise SystemExit(128 + asked)


def watch(trt: Any, config: Any, progress: Progress, stop: Stop) -> Any:
    """Attach a progress monitor where TensorRT has them; keep what is returned until the build is over."""
    if not hasattr(trt, "IProgressMonitor") or not hasattr(config, "progress_monitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Tells the running phase, and the share of it that is done."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self.steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(f"building the engine: {phase_name}", (step + 1) / max(step + 1, self.steps.get(phase_name, 0)))
            return not stop.asked

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor
