"""The search: Optuna proposes, each trial is judged on more and more images, and only what may be good is timed."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gtp_exporters.errors import ConversionError, MissingPackageError
from gtp_exporters.measuring.accuracy import Judge, graph_losses
from gtp_exporters.measuring.candidate import PLAIN, Candidate
from gtp_exporters.measuring.choice import Limit
from gtp_exporters.measuring.graphs import Graphs
from gtp_exporters.measuring.latency import LOADS, cached, time_in_turn, time_plausibly
from gtp_exporters.measuring.result import Loss, Result, Timing, is_timed
from gtp_exporters.measuring.shards import Workers, rungs
from gtp_exporters.measuring.space import Space
from gtp_exporters.measuring.store import Store
from gtp_models.errors import ConfigError
from gtp_models.methods.gtp.selections import SELECTIONS
from gtp_runtime import ImageSet
from gtp_runtime.accuracy import Tally
from gtp_runtime.latency import MIN_RUNS
from gtp_runtime.messages import Progress
from gtp_runtime.question import Question

TASK = "searching"
PRIOR = 0.02  # weight of what is believed at first, in measurements
LEAST_ERROR = 0.01  # of the ratio: latency is not measured more closely than that
SURE = 2.0  # standard errors
GRAPH_IMAGES = 1024  # that the loss of a graph in a lower precision is measured on
IDLE = 50  # proposals in a row that are repeats, or fit nothing, after which a search ends
ROUNDS = -(-MIN_RUNS // LOADS)


class TimeUpError(Exception):
    """The time that the user gave is over; never seen outside of ``tune``."""


class Deadline:
    """The end of a search in time; never without ``seconds``."""

    def __init__(self, seconds: float | None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._until is not None and time.monotonic() >= self._until

    @property
    def left(self) -> float | None:
        """Seconds until the end; None without one."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def share(self, share: float) -> "Deadline":
        """Return the end of the first part of what is left."""
        return Deadline(None if self.left is None else share * self.left)

    def check(self) -> None:
        """Raise ``TimeUpError`` if the time is up."""
        if self.is_over:
            raise TimeUpError


class Timer:
    """Times candidates beside the dense model; what has the same shapes is timed once.

    Args:
        graphs: exports them.
        dense: the dense model, in float32.
        seconds: of timing, for two files.
        workers: where latency is measured.
        question: what is measured of the graphs' answers (default: by the kind of their outputs).
    """

    def __init__(
        self, graphs: Graphs, dense: Candidate, seconds: float, workers: Workers, question: Question | None = None
    ) -> None:
        self.graphs, self.dense, self.seconds, self.workers = graphs, dense, seconds, workers
        self.question = question
        self._known: dict[str, Timing] = {}

    def learn(self, candidate: Candidate, timing: Timing) -> None:
        """Take note of a timing that need not be measured again."""
        self._known[candidate.shape_key] = timing

    def known(self, candidate: Candidate) -> Timing | None:
        """Return the timing of the same shapes; None if there is none."""
        timing = self._known.get(candidate.shape_key)
        return None if timing is None else cached(timing)

    def time(self, candidate: Candidate) -> Timing:
        """Return the latency of a candidate: timed, or known of others with the same shapes."""
        timing = self.known(candidate)
        if timing is None:
            timing = self.time_all([candidate])[0]
            self.learn(candidate, timing)
        return timing

    def time_all(self, candidates: Sequence[Candidate]) -> list[Timing]:
        """Time candidates in turn with the dense model, in one process."""
        every = [self.dense, *candidates]
        files, runnings = self._files(every), [candidate.running for candidate in every]
        ratios = [candidate.plan.ratio if candidate.running.precision == PLAIN else None for candidate in every]
        seconds = self.seconds * len(every) / 2 / LOADS
        return time_plausibly(files, runnings, ratios, seconds, self.workers, LOADS, ROUNDS)[1:]

    def check(self, candidate: Candidate) -> None:
        """Check that the backend runs the graph of a candidate.

        Raises:
            BackendMissingError: it does not.
        """
        time_in_turn([self.graphs.graph(candidate)], [candidate.running], 0.0, 1, self.workers, 1)

    def losses(self, candidates: Sequence[Candidate], images: ImageSet, progress: Progress) -> list[Loss]:
        """Return what the graphs of candidates lose beside the dense model's."""
        every = [self.dense, *candidates]
        runnings = [candidate.running for candidate in every]
        files = self._files(every)
        return graph_losses(files, runnings, images, progress, workers=self.workers, question=self.question)[1:]

    def _files(self, candidates: Iterable[Candidate]) -> list[Path]:
        return [self.graphs.graph(candidate) for candidate in candidates]


class Estimator:
    """Ratio of latency to the dense model's, linear in what a schedule does; at first the ratio of MACs.

    Args:
        precisions: those that are tried; each may cost something of its own.
    """

    def __init__(self, precisions: tuple[str, ...]) -> None:
        self._precisions = precisions
        self._known: dict[str, tuple[np.ndarray, float]] = {}
        believed = np.zeros(5 + len(precisions))
        believed[1] = 1.0
        self._believed = self._weights = believed
        self.error = 0.1  # standard error of an estimate

    def learn(self, result: Result) -> None:
        """Take note of a measurement."""
        features = self._features(result)
        self._known[features.tobytes().hex()] = (features, result.ratio)
        rows = np.stack([features for features, _ in self._known.values()])
        ratios = np.array([ratio for _, ratio in self._known.values()])
        missed = ratios - rows @ self._believed
        square = rows.T @ rows + PRIOR * np.eye(rows.shape[1])
        self._weights = self._believed + np.linalg.solve(square, rows.T @ missed)
        spare = len(ratios) - rows.shape[1]
        if spare > 0:
            self.error = max(LEAST_ERROR, float(np.sqrt(((ratios - rows @ self._weights) ** 2).sum() / spare)))

    def estimate(self, result: Result) -> float:
        """Return an estimate of the ratio."""
        return float(self._features(result) @ self._weights)

    def _features(self, result: Result) -> np.ndarray:
        reducing = sum(map(bool, result.num_prop)) / len(result.num_prop)
        needs_map = SELECTIONS[result.settings["selection"]].needs == "map" if reducing else False
        return np.array(
            [
                1.0,
                result.total_ratio,
                reducing * needs_map,
                reducing * (not needs_map),
                result.settings.get("sparsity", 1.0) < 1,
                *(result.precision == name for name in self._precisions),
            ],
            float,
        )


def hopeless(result: Result, timed: Iterable[Result], error: float, limit: Limit) -> str:
    """Return why a trial can no longer be on the front, or be chosen; "" if it can.

    Args:
        result: the trial, with its loss, its estimate, and its distance on every rung so far.
        timed: results with a measured latency.
        error: of the estimate of its latency ratio.
        limit: what the user asked for.
    """
    loss, rung = result.loss, len(result.rungs) - 1
    assert loss is not None and result.estimate is not None
    if limit.is_of_loss and limit.lost(loss) - SURE * limit.error(loss) > limit.most:
        return f"loses {limit.words(loss)} on {loss.images} images, {limit.option} allows {limit.most:g}"
    for other in timed:
        if len(other.rungs) <= rung or other.ratio > result.estimate - error:
            continue
        if result.rungs[rung] - (loss.distance_se or 0.0) > other.rungs[rung]:
            return f"is farther from dense than {other.name} on {loss.images} images and is not estimated to be faster"
    return ""


def dominated(result: Result, timed: Iterable[Result], error: float) -> str:
    """Return why a trial is not worth an export: something timed is better and surely as fast; "" otherwise."""
    assert result.loss is not None and result.estimate is not None
    for other in filter(is_timed, timed):
        assert other.loss is not None
        is_faster = other.ratio <= result.estimate - error
        if is_faster and other.distance <= result.distance and other.loss.points <= result.loss.points:
            return f"{other.name} is better and faster than estimated here"
    return ""


@dataclass
class _Trial:
    """A trial under way: what Optuna knows it as, what it tries, and what is known of it."""

    asked: Any
    candidate: Candidate
    result: Result
    tally: Tally = field(default_factory=Tally)

    @property
    def number(self) -> int:
        """Of the trial."""
        assert self.result.trial is not None
        return self.result.trial

    def add(self, tally: Tally, judge: Judge) -> None:
        """Take note of the sums over further images, as the judge reads them."""
        self.tally.merge(tally)
        loss = judge.loss_of(self.tally)
        self.result = replace(self.result, loss=loss, rungs=[*self.result.rungs, loss.distance])


class Search:
    """A search on a model, resumed from what its store keeps.

    Args:
        store: keeps every trial that ended.
        space: what is tried.
        judge: measures what is lost.
        timer: exports, and measures latency.
        limit: what the user asked for.
        base: results of the dense model and of the recipe's default.
        seed: of what Optuna draws.

    Raises:
        MissingPackageError: Optuna is not installed.
    """

    def __init__(
        self, store: Store, space: Space, judge: Judge, timer: Timer, limit: Limit, base: Sequence[Result], seed: int
    ) -> None:
        self.store, self.space, self.judge, self.timer, self.limit = store, space, judge, timer, limit
        self.optuna = _import()
        self.ends = rungs(len(judge.images.search))
        self.estimator = Estimator(space.precisions)
        self.base, self.trials = list(base), self._kept()
        self._tried = {result.identity: result for result in self.results}
        for result in filter(is_timed, self.results):
            self.estimator.learn(result)
        has_classes = any(result.loss is not None and result.loss.top1_drop is not None for result in base)
        self.study = self.optuna.create_study(directions=["minimize"] * (3 if has_classes else 2))
        self._replay()
        self.study.sampler = self.optuna.samplers.TPESampler(seed=seed + len(self.study.trials))

    @property
    def results(self) -> list[Result]:
        """The dense model, the recipe's default, and every trial that ended."""
        return [*self.base, *self.trials]

    def run(self, trials: int, deadline: Deadline, progress: Progress) -> None:
        """Go on until so many trials ended in all, or the time is up; repeats are no trials."""
        idle = 0
        self.judge.check = deadline.check
        try:
            while len(self.trials) < trials and idle < IDLE:
                deadline.check()
                first = self._next_number()
                count = min(self.judge.workers.trials, trials - len(self.trials))
                asked = [trial for trial in (self._ask(first + step) for step in range(count)) if trial is not None]
                idle = 0 if asked else idle + 1
                self._evaluate(asked, deadline)
                progress(TASK, min(1.0, len(self.trials) / trials))
        except TimeUpError:
            progress("the time is up")
        finally:
            self.judge.check = lambda: None

    def _kept(self) -> list[Result]:
        names = [name for name in self.store.values if name.startswith("trial ")]
        return [result for name in names for result in self.store.results(name) or []]

    def _replay(self) -> None:
        """Let Optuna know of the trials that are kept, and enqueue the first ones that are not."""
        for result in self.trials:
            self.study.enqueue_trial(result.parameters)
            asked = self.study.ask()
            self.space.propose(asked)
            self._tell(asked, result)
        for start in self.space.starts():
            if not any(_is_start(result.parameters, start) for result in self.trials):
                self.study.enqueue_trial(start)

    def _next_number(self) -> int:
        return 1 + max((result.trial or 0 for result in self.trials), default=-1)

    def _ask(self, number: int) -> _Trial | None:
        """Return the next trial; None if it is no new one: it removes nothing, does not fit, or was tried before."""
        asked = self.study.ask()
        proposal = self.space.propose(asked)
        running = self.timer.dense.running.in_precision(proposal.precision)
        batch = self.timer.dense.batch
        try:
            candidate = self.timer.graphs.candidate(f"trial {number}", proposal.settings, running, batch)
        except ConfigError:
            self.study.tell(asked, state=self.optuna.trial.TrialState.PRUNED)
            return None
        result = Result.of(candidate, trial=number, parameters=dict(asked.params))
        known = self._tried.get(result.identity)
        if known is not None or not any(result.num_prop):
            self._tell(asked, known or result)
            return None
        timing = self.timer.known(candidate)
        estimate = self.estimator.estimate(result) if timing is None else timing.ratio
        self._tried[result.identity] = result
        return _Trial(asked, candidate, replace(result, estimate=estimate))

    def _evaluate(self, trials: list[_Trial], deadline: Deadline) -> None:
        """Judge trials side by side, a rung at a time; then time those that are left."""
        begin = 0
        for end in self.ends:
            if not trials:
                return
            pairs = [(trial.number, trial.candidate.settings) for trial in trials]
            tallies = self.judge.judge(pairs, begin, end)
            for trial in trials:
                trial.add(tallies[trial.number], self.judge)
            trials, begin = self._left(trials, self._hopeless), end
        for trial in trials:
            if self._left([trial], self._dominated):
                deadline.check()
                self._end(trial, self._measured(trial))

    def _measured(self, trial: _Trial) -> Result:
        """Return the result with its latency; in a lower precision with the loss of the graph, not of eager PyTorch.

        Without either where a converter cannot make its file.
        """
        try:
            timing, loss = self.timer.time(trial.candidate), trial.result.loss
        except ConversionError as error:
            return replace(trial.result, why=str(error))
        if trial.candidate.running.written != PLAIN:
            part = self.judge.images.search.part(slice(GRAPH_IMAGES))
            loss = self.timer.losses([trial.candidate], part, lambda task, share=None: None)[0]
        self.timer.graphs.remove([trial.candidate])
        return replace(trial.result, timing=timing, loss=loss)

    def _left(self, trials: list[_Trial], reason: Callable[[_Trial], str]) -> list[_Trial]:
        """Return the trials for which there is no reason to end them, and end the others."""
        left = []
        for trial in trials:
            why = reason(trial)
            if why:
                self._end(trial, replace(trial.result, why=why))
            else:
                left.append(trial)
        return left

    def _hopeless(self, trial: _Trial) -> str:
        return hopeless(trial.result, filter(is_timed, self.results), self._error(trial), self.limit)

    def _dominated(self, trial: _Trial) -> str:
        return dominated(trial.result, self.results, self._error(trial))

    def _error(self, trial: _Trial) -> float:
        """Standard error of a trial's estimate: none where the same shapes were timed."""
        return self.estimator.error if self.timer.known(trial.candidate) is None else 0.0

    def _end(self, trial: _Trial, result: Result) -> None:
        self.store.keep_results(result.name, [result])
        self._tell(trial.asked, result)
        self.trials.append(result)
        self._tried[result.identity] = result
        if is_timed(result):
            self.estimator.learn(result)

    def _tell(self, asked: Any, result: Result) -> None:
        """Let Optuna know of a result: with a timing the objectives count; without one it was given up."""
        violation = self.limit.violation(result)
        if violation is not None:
            asked.set_constraint("limit", violation)
        if is_timed(result):
            self.study.tell(asked, list(result.objectives))
        else:
            self.study.tell(asked, state=self.optuna.trial.TrialState.PRUNED)


def _is_start(parameters: dict[str, Any], start: dict[str, Any]) -> bool:
    return bool(parameters) and all(start.get(name) == value for name, value in parameters.items())


def _import() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingPackageError("optuna is not installed: pip install 'gtp-export[tune]'") from error
    optuna.logging.set_verbosity(logging.ERROR)
    return optuna
