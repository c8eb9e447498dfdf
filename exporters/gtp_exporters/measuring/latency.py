"""Latency beside the dense model, in turn in one process; what a graph costs beside; and what schedules cost in time.

The whole model is exported and timed, so that what a runtime fuses counts as it does later. Tokens that ``drop`` slices
off in the first layer give the time of a block by its number of tokens: at multiples of a tile, and once between them,
where a runtime's tiles are not full. The method's own graphs, less the blocks, give the time of a step: a constant and
a share of its MACs. ``TimeCosts`` adds both up for any schedule. The user's cache keeps the times: a JSON file for each
question (device, versions, layers of the model, settings, batch, precision), named by its hash.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from gtp_exporters.artifacts import write_artifacts
from gtp_exporters.errors import LimitError
from gtp_exporters.graph.describe import tool_versions
from gtp_exporters.measuring.candidate import AMOUNTS, Running, graph_backends, running_on
from gtp_exporters.measuring.result import Timing
from gtp_exporters.measuring.shards import Local, Workers
from gtp_exporters.options import ExportOptions
from gtp_exporters.reference import synthetic_images
from gtp_exporters.subject import Subject
from gtp_models.errors import ConfigError
from gtp_models.fitting.space import TimeCosts, tile_for
from gtp_models.methods import make_settings
from gtp_models.methods.gtp.calibration import calibrate
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.settings import LayerShape, ModelShape, Settings
from gtp_models.plan import Plan, make_plan, model_shape, token_counts
from gtp_models.schedules import Amounts
from gtp_runtime import Footprint
from gtp_runtime.atomic import write_bytes
from gtp_runtime.errors import DeviceError
from gtp_runtime.fleet.jobs import Start, start_file, time_files
from gtp_runtime.fleet.jobs import Timing as InTurn
from gtp_runtime.footprint import file_bytes
from gtp_runtime.latency import MIN_RUNS
from gtp_runtime.machine import describe_machine, user_cache
from gtp_runtime.manifest import MODEL_NAME
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.precisions import PRECISIONS

LOADS = 3  # loadings that the seconds are shared by; the one in the middle counts
STARTS = 1  # processes for each file
AGAIN = 2  # times that a timing which contradicts its MACs is taken again
MOST_SAVED = 1.5  # times the share of MACs saved: attention's softmax is no MAC, and caches help, but not more
SLACK = 0.05  # of the ratio
MOST_LOST = 0.5  # of the ratio, above that of the MACs
log = logging.getLogger(__name__)


def time_in_turn(
    files: Sequence[Path],
    runnings: Sequence[Running],
    seconds: float,
    loads: int = LOADS,
    workers: Workers | None = None,
    rounds: int = MIN_RUNS,
) -> list[Timing]:
    """Time graphs in turn in one process; each is beside the first one, the dense model's.

    Args:
        files, runnings: the graphs, and how each runs, all on the same backend.
        seconds: of timing, for all files together, in each loading.
        loads: how often files are loaded anew and timed; the one with the median ratio counts.
        workers: where latency is measured (default: in this process).
        rounds: runs of each in a loading, at least.

    Raises:
        BackendMissingError, DeviceError: the device cannot run one of them.
    """
    options = tuple(running.options for running in runnings)
    job = InTurn(tuple(files), runnings[0].backend, options, seconds, rounds=rounds, loads=loads)
    return [Timing.of(latency) for latency in (workers or Local()).on_device(time_files, job)]


def time_plausibly(
    files: Sequence[Path],
    runnings: Sequence[Running],
    macs_ratios: Sequence[float | None],
    seconds: float,
    workers: Workers | None = None,
    loads: int = LOADS,
    rounds: int = MIN_RUNS,
) -> list[Timing]:
    """Time as ``time_in_turn``, and what contradicts its MACs again; of several timings the middle one counts.

    Args:
        files, runnings, seconds, workers, loads, rounds: as there.
        macs_ratios: of each file, its MACs over the dense model's; None where they say nothing: in another precision.
    """
    every = [time_in_turn(files, runnings, seconds, loads, workers, rounds)]
    while len(every) <= AGAIN and any(map(contradicts, every[-1], macs_ratios)):
        log.info("timings that contradict their MACs are taken again: %s", [timing.ratio for timing in every[-1]])
        every.append(time_in_turn(files, runnings, seconds, loads, workers, rounds))
    return [middle(timings) for timings in zip(*every, strict=True)]


def contradicts(timing: Timing, macs_ratio: float | None) -> bool:
    """Whether a latency is far below or above what the MACs allow for."""
    if macs_ratio is None:
        return False
    saved, expected = 1 - timing.ratio, 1 - macs_ratio
    return saved > MOST_SAVED * expected + SLACK or saved < expected - MOST_LOST


def middle(timings: Sequence[Timing]) -> Timing:
    """Return the timing with the median ratio; of an even number, the slower of the two."""
    return sorted(timings, key=lambda timing: (timing.ratio, timing.p50_ms))[len(timings) // 2]


def share_of(timing: Timing, dense: Timing, macs_ratio: float) -> float | None:
    """Return the share of the saved MACs that becomes saved time; None where none are, or where noise is larger.

    Args:
        timing: the candidate's.
        dense: that of the dense model in the same precision, timed in the same runs.
        macs_ratio: the candidate's MACs over the dense model's.
    """
    saved = 1 - macs_ratio
    if saved <= 0 or timing.is_noisy or dense.is_noisy:
        return None
    return (1 - timing.ratio / dense.ratio) / saved


def footprint_of(path: Path, running: Running, workers: Workers | None = None) -> Footprint:
    """Return the size of a file, and what a process of its own takes to run it, where one can."""
    try:
        return (workers or Local()).on_device(start_file, Start((path,), running.backend, running.options, STARTS))
    except DeviceError as error:
        log.info("memory and cold start of %s on %s are not measured: %s", path, running.label, error)
        return Footprint(file_bytes(path))


def cached(timing: Timing) -> Timing:
    """Return a timing for another candidate with the same shapes."""
    return replace(timing, cached=True)


SHARES = (0.8, 0.6, 0.4)  # of the tokens: where a block is timed
BETWEEN = 0.6  # of the tokens: timed beside a tile as well
SECONDS = 0.5  # of timing, for each graph in each loading
KEPT = "token-times"  # the folder of times in the user's cache


@dataclass(frozen=True)
class BlockTimes:
    """Seconds of a block by its number of tokens, prefix included.

    Attributes:
        tile: tokens that a runtime computes together.
        counts: where it was timed: multiples of the tile, and all tokens.
        seconds: of each count, both ascending.
        between: factor for a count that is no multiple.
    """

    tile: int
    counts: tuple[int, ...]
    seconds: tuple[float, ...]
    between: float = 1.0

    def __call__(self, tokens: int) -> float:
        """Return the seconds at a number of tokens: linear between what was timed, and in proportion below."""
        if tokens < self.counts[0]:
            line = self.seconds[0] * tokens / self.counts[0]
        else:
            line = float(np.interp(tokens, self.counts, self.seconds))
        full = tokens % self.tile == 0 or tokens in self.counts
        return line if full else line * self.between


@dataclass(frozen=True)
class StepTimes:
    """Seconds of selecting and merging in a layer: a constant, and seconds for each of the method's MACs there."""

    settings: Settings
    shape: ModelShape
    constant: float
    per_mac: float

    def __call__(self, tokens: int, amount: int) -> float:
        """Return the seconds of a step of ``amount`` of ``tokens``."""
        return self.constant + self.per_mac * self.settings.layer_macs(LayerShape(self.shape, tokens, amount))


def measure_costs(
    subject: Subject, settings: Settings, options: ExportOptions, progress: Progress = quiet
) -> TimeCosts:
    """Return the times of a model by schedule on ``options.target``, in graphs of its batch and precision.

    They are measured once for a device, the layers of a model, the settings of the method and the target.

    Raises:
        LimitError: the target runs no graphs on this machine: TensorRT.
        BackendMissingError: its package is not installed.
    """
    if options.target not in graph_backends():
        raise LimitError(
            f"a share of the time on {options.target} cannot be measured here, which runs no graphs: give --keep, or "
            f"--target {' or '.join(graph_backends())}"
        )
    running = running_on(options.target, {"threads": 1})
    shape = model_shape(subject.model)
    form = {name: value for name, value in settings.to_dict().items() if name not in AMOUNTS}
    question = {
        "device": describe_machine([running.backend]),
        "versions": tool_versions(),
        "model": [str(shape), hashlib.sha256(repr(subject.model).encode()).hexdigest()],
        "method": [settings.name, form],
        "running": [running.key, options.batch, options.converted],
    }
    key = hashlib.sha256(json.dumps(question, default=str, sort_keys=True).encode()).hexdigest()
    file = user_cache() / KEPT / f"{key[:32]}.json"
    times = _kept(file)
    if times is None:
        times = _Timing(subject, settings, options, running, progress).times()
        _keep(file, times)
    steps = StepTimes(settings, shape, times.step, times.per_mac)
    return TimeCosts(settings, shape, times.block, steps)


@dataclass(frozen=True)
class Times:
    """What is measured: times of blocks, and the constant and the seconds for each MAC of a step."""

    block: BlockTimes
    step: float
    per_mac: float


def _kept(file: Path) -> Times | None:
    """Return the times of a file; None if there is none, or it is not whole."""
    try:
        values = json.loads(file.read_bytes())
        block = values.pop("block")
        counts, seconds = tuple(map(int, block.pop("counts"))), tuple(map(float, block.pop("seconds")))
        block = BlockTimes(int(block["tile"]), counts, seconds, float(block["between"]))
        times = Times(block, float(values["step"]), float(values["per_mac"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    whole = len(counts) == len(seconds) > 0 and list(counts) == sorted(counts) and block.tile > 0
    return times if whole and all(map(_is_time, (*seconds, block.between))) else None


def _is_time(value: float) -> bool:
    return 0 < value < float("inf")


def _keep(file: Path, times: Times) -> None:
    """Write times; where the cache cannot be written, they are measured again next time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, json.dumps(asdict(times), indent=1).encode())
    except OSError:
        return


class _Timing:
    """Exports and times the graphs of a model."""

    def __init__(
        self, subject: Subject, settings: Settings, options: ExportOptions, running: Running, progress: Progress
    ) -> None:
        self.subject, self.settings, self.running, self.progress = subject, settings, running, progress
        self.shape = model_shape(subject.model)
        self.start = self.shape.patches + self.shape.num_prefix
        pixels = synthetic_images(subject.preprocessing.crop, 1).pixels
        self.image = torch.from_numpy(subject.preprocessing.normalise(pixels))
        precision = options.converted if PRECISIONS[options.converted].prover == running.backend else "fp32"
        self.options = ExportOptions(
            batch=options.batch, dense=False, trace=False, target=options.target, precision=precision
        )

    def times(self) -> Times:
        """Return the times of blocks and steps."""
        tile = tile_for(self.start)
        counts = sorted({max(tile, round(share * self.start / tile) * tile) for share in SHARES} - {self.start})
        between = next((count for count in counts if count >= BETWEEN * self.start), counts[-1]) - max(1, tile // 2)
        dropped = [self._plan(make_settings("drop"), self._first(count)) for count in (*counts, between)]
        steps = self._steps(counts)
        plans = [make_plan(self.subject.model, make_settings("dense")), *dropped, *steps]
        seconds = self._seconds(plans)
        blocks = [self._block(value, seconds[0]) for value in seconds[1 : len(counts) + 2]]
        times = BlockTimes(tile, (*counts, self.start), (*blocks[:-1], seconds[0] / self.shape.depth))
        factor = max(1.0, blocks[-1] / times(between)) if tile > 1 else 1.0
        times = BlockTimes(tile, times.counts, times.seconds, factor)
        without = TimeCosts(self.settings, self.shape, times)
        beyond = [
            value - without.backbone(plan.num_prop) for plan, value in zip(steps, seconds[-len(steps) :], strict=True)
        ]
        return Times(times, *(self._step(steps, beyond) if steps else (0.0, 0.0)))

    def _first(self, count: int) -> Amounts:
        """Return the amounts that leave this number of tokens behind the first layer."""
        return (self.start - count, *(0,) * (self.shape.depth - 1))

    def _block(self, seconds: float, dense: float) -> float:
        """Return the time of a block where the first layer drops tokens: half of that one sees all of them."""
        return (seconds - dense / self.shape.depth / 2) / (self.shape.depth - 0.5)

    def _steps(self, counts: Sequence[int]) -> list[Plan]:
        """Return plans of the method with one step, at two amounts, and with three."""
        depth, joins = self.shape.depth, self.settings.joins
        third = max(1 + joins, (self.start - counts[0]) // 3)
        several = tuple(third if layer in range(0, min(3, depth)) else 0 for layer in range(depth))
        amounts = [(self.start - count + joins, *(0,) * (depth - 1)) for count in counts[-2:]]
        plans = []
        for num_prop in dict.fromkeys([*amounts, several]):
            try:
                token_counts(self.settings, self.shape, num_prop)
                plans.append(self._plan(self.settings, num_prop))
            except ConfigError:  # more than the method can take in one layer
                continue
        return plans

    def _plan(self, settings: Settings, num_prop: Amounts) -> Plan:
        """Return the plan of amounts; calibrated on one image where that is needed: any gives the same time."""
        settings = settings.resolved(num_prop)
        if settings.needs_calibration:
            assert isinstance(settings, GTPConfig)
            settings = calibrate(self.subject.model, settings, [self.image])
        return make_plan(self.subject.model, settings)

    def _step(self, plans: Sequence[Plan], seconds: Sequence[float]) -> tuple[float, float]:
        """Return the constant and the seconds for each MAC that explain best what graphs take beyond their blocks;
        never below 0.
        """
        macs = [sum(layer.method_macs for layer in plan.layers) for plan in plans]
        steps = [sum(map(bool, plan.num_prop)) for plan in plans]
        scale = max(*macs, 1)
        rows = np.array([steps, [value / scale for value in macs]], float).T
        constant, share = np.linalg.lstsq(rows, np.array(seconds), rcond=None)[0]
        if share < 0 or constant < 0:  # they are hard to tell apart: a constant alone
            constant, share = max(0.0, sum(seconds) / sum(steps)), 0.0
        return float(constant), float(share / scale)

    def _seconds(self, plans: Sequence[Plan]) -> list[float]:
        with tempfile.TemporaryDirectory(prefix="gtp-export-") as place:
            files = []
            for number, plan in enumerate(plans):
                self.progress("exporting graphs to time", number / len(plans))
                directory = Path(place) / str(number)
                directory.mkdir()
                images = synthetic_images(self.subject.preprocessing.crop)
                write_artifacts(self.subject, plan, images, self.options, directory, quiet)
                files.append(directory / MODEL_NAME)
            self.progress("timing graphs")
            timings = time_in_turn(files, [self.running] * len(files), SECONDS * len(files))
        return [timing.ratio * timings[0].p50_ms / 1e3 for timing in timings]
