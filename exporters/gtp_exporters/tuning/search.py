"""The search: Optuna proposes, each trial is judged on more and more images, and only what may be good is timed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from gtp_exporters.tuning.estimating import Estimator, macs_ratio
from gtp_exporters.tuning.front import Limit
from gtp_exporters.tuning.judging import Judge, loss_of
from gtp_exporters.tuning.results import Result, identity, timed
from gtp_exporters.tuning.rungs import dominated, hopeless, rungs
from gtp_exporters.tuning.space import Proposal, Space
from gtp_exporters.tuning.storage import Journal
from gtp_exporters.tuning.timing import Timer
from gtp_models.errors import ConfigError
from gtp_models.plan import Plan, make_plan
from gtp_runtime.accuracy import Tally
from gtp_runtime.progress import Progress

TASK = "searching"


@dataclass
class Candidate:
    """A trial under way: what Optuna knows it as, what it tries, and what is known of it."""

    trial: Any
    proposal: Proposal
    plan: Plan
    result: Result
    tally: Tally = field(default_factory=Tally)

    @property
    def number(self) -> int:
        """Of the trial."""
        return self.trial.number

    def add(self, tally: Tally) -> None:
        """Take note of the sums over further images."""
        self.tally.merge(tally)
        loss = loss_of(self.tally)
        self.result = replace(self.result, loss=loss, rungs=[*self.result.rungs, loss.divergence])


class Search:
    """A search on a model.

    Args:
        journal: keeps it.
        space: what is tried.
        judge: measures what is lost.
        timer: measures latency.
        limit: what the user asked for.
        default: result of the recipe's default.
    """

    def __init__(
        self, journal: Journal, space: Space, judge: Judge, timer: Timer, limit: Limit, default: Result
    ) -> None:
        self.journal, self.space, self.judge, self.timer, self.limit = journal, space, judge, timer, limit
        self.ends = rungs(len(judge.images.search))
        self.estimator = Estimator(space.precisions)
        self.results = [default, *journal.results()]
        self._tried = {identity(result): result for result in self.results}
        for result in self.timed:
            self.estimator.learn(result)

    @property
    def timed(self) -> list[Result]:
        """Results with a latency, the recipe's default first."""
        return timed(self.results)

    @property
    def done(self) -> int:
        """Trials that ended."""
        return len(self.results) - 1

    def run(self, trials: int, until: float | None, progress: Progress) -> None:
        """Go on until so many trials ended in all, or until a time of ``time.monotonic``."""
        if not self.journal.study.trials:
            for parameters in self.space.starts():
                self.journal.study.enqueue_trial(parameters)
        while self.done < trials and (until is None or time.monotonic() < until):
            asked = [self._ask() for _ in range(min(self.judge.workers.trials, trials - self.done))]
            self._evaluate([candidate for candidate in asked if candidate is not None])
            progress(TASK, min(1.0, self.done / trials))

    def _ask(self) -> Candidate | None:
        """Return the next trial; None if it ended at once, because it removes nothing or was tried before."""
        trial = self.journal.study.ask()
        proposal = self.space.propose(trial)
        result = Result(
            proposal.settings.to_dict(), proposal.precision, _amounts(proposal), 1.0, 1.0, trial=trial.number
        )
        known = self._tried.get(identity(result))
        if known is not None:
            self._end(trial, replace(known, trial=trial.number, why="the same as an earlier trial"))
            return None
        try:
            plan = make_plan(self.timer.subject.model, proposal.settings)
        except ConfigError as error:
            self._end(trial, result.without_timing(str(error)))
            return None
        if not any(plan.num_prop):
            self._end(trial, result.without_timing("removes no token"))
            return None
        result = replace(result, macs_ratio=macs_ratio(plan))
        timing = self.timer.known(proposal, plan)
        estimate = self.estimator.estimate(result) if timing is None else timing.ratio
        return Candidate(trial, proposal, plan, replace(result, estimate=estimate))

    def _evaluate(self, candidates: list[Candidate]) -> None:
        """Judge trials side by side, a rung at a time; then time those that are left."""
        begin = 0
        for end in self.ends:
            if not candidates:
                return
            pairs = [(candidate.number, candidate.proposal.settings) for candidate in candidates]
            for number, tally in self.judge.judge(pairs, begin, end).items():
                next(candidate for candidate in candidates if candidate.number == number).add(tally)
            candidates, begin = self._kept(candidates, self._hopeless), end
        for candidate in candidates:
            if self._kept([candidate], self._dominated):
                timing, loss = self.timer.measure(candidate.proposal, candidate.plan, self.judge.images.search)
                result = replace(candidate.result, timing=timing, loss=loss or candidate.result.loss)
                self._end(candidate.trial, result)

    def _kept(self, candidates: list[Candidate], reason: Callable[[Result], str]) -> list[Candidate]:
        """Return the trials for which there is no reason to end them, and end the others."""
        kept = []
        for candidate in candidates:
            why = reason(candidate.result)
            if why:
                self._end(candidate.trial, candidate.result.without_timing(why))
            else:
                kept.append(candidate)
        return kept

    def _hopeless(self, result: Result) -> str:
        assert result.loss is not None
        return hopeless(result, result.loss, self.timed, self._error(result), self.limit.max_drop)

    def _dominated(self, result: Result) -> str:
        return dominated(result, self._error(result), self.timed)

    def _error(self, result: Result) -> float:
        """Standard error of a trial's estimate: none where the same shapes were timed."""
        known = self.timer.known(result.proposal, make_plan(self.timer.subject.model, result.proposal.settings))
        return self.estimator.error if known is None else 0.0

    def _end(self, trial: Any, result: Result) -> None:
        self.journal.tell(trial, result, self.limit.violation(result))
        self.results.append(result)
        self._tried.setdefault(identity(result), result)
        if result.timing is not None:
            self.estimator.learn(result)


def _amounts(proposal: Proposal) -> list[int]:
    assert isinstance(proposal.settings.num_prop, tuple)
    return list(proposal.settings.num_prop)
