"""The end of a search: the best are timed again in turn, one is chosen, validated on other images, and written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gtp_exporters.tuning.front import beating, finalists, front
from gtp_exporters.tuning.options import TuneOptions
from gtp_exporters.tuning.outcome import Outcome, called, write_outcome
from gtp_exporters.tuning.results import Result, identity, timed, timed_again
from gtp_exporters.tuning.search import TASK, Search
from gtp_exporters.tuning.shards import Split
from gtp_exporters.tuning.timing import BASELINE, Timer
from gtp_exporters.tuning.validation import Validated, Validation
from gtp_models.recipes import Recipe
from gtp_runtime.manifest import MODEL_NAME
from gtp_runtime.progress import Progress


@dataclass
class Finish:
    """What the end of a search needs.

    Attributes:
        recipe, weights, output, options: as ``run.tune`` takes them.
        split: images that the search saw, and those that it did not.
        timer: exports and times; its baseline is there.
        progress: told what is being done.
    """

    recipe: Recipe
    weights: str
    output: Path
    options: TuneOptions
    split: Split
    timer: Timer
    progress: Progress

    def run(self, search: Search) -> Outcome:
        """Time the best again, choose, validate, and write."""
        graphs = self._export(finalists(search.timed, self.options.limit, search.results[0]))
        self.progress("timing the best again, in turn")
        latencies = dict(zip(graphs, self.timer.time_all(list(graphs.values())), strict=True))
        results = [timed_again(result, latencies) for result in search.results]
        outcome = self._outcome(results, graphs)
        self.progress("writing the page and the recipe")
        write_outcome(outcome)
        return outcome

    def _export(self, best: list[Result]) -> dict[str, Path]:
        """Return the graph of each, by identity; that of the recipe's default, the first, is there."""
        graphs = {identity(best[0]): self.timer.place / BASELINE / MODEL_NAME}
        for number, result in enumerate(best[1:], 1):
            self.progress(f"exporting {called(result)} again")
            settings = result.proposal.settings
            graphs[identity(result)] = self.timer.export(f"best-{number}", settings, result.precision)
        return graphs

    def _outcome(self, results: list[Result], graphs: dict[str, Path]) -> Outcome:
        """Choose among the results that have a graph: the best for which the images that were held out say so too."""
        limit, default = self.options.limit, results[0]
        last = [result for result in results if identity(result) in graphs and result.timing is not None]
        choices, betters = limit.ranked(last), beating(last, default)
        validation = self._validation(graphs)
        validation.run(map(identity, [default, *choices[:1], *betters[:1]]))
        base = validation.of(identity(default))
        chosen = first_that_holds(choices, validation, lambda found: limit.kept_by(found.loss, found.p50_ms))
        better = first_that_holds(betters, validation, lambda found: found.beats(base))
        named = {"default": default, "chosen": chosen, "better": better}
        return Outcome(
            recipe=self._own_weights(),
            directory=self.output,
            limit=limit,
            running=self.options.running,
            search_images=len(self.split.search),
            origin=self.split.search.folder.name,
            trials=len(results) - 1,
            results=results,
            front=front(timed(results)),
            default=default,
            chosen=chosen,
            better=better,
            nearest=None if chosen is not None else limit.nearest(last),
            validated={name: validation.of(identity(result)) for name, result in named.items() if result is not None},
        )

    def _validation(self, graphs: dict[str, Path]) -> Validation:
        running, workers, images = self.options.running, self.timer.workers, self.split.held_out
        return Validation(self.timer.baseline, graphs, images, running, workers, self._tell)

    def _tell(self, task: str, share: float | None = None) -> None:
        """Progress of other tasks than the search, whose shares count no trials."""
        self.progress(task, share if task == TASK else None)

    def _own_weights(self) -> Recipe:
        """Return the recipe with the weights that were used, so that an export of it needs no --weights."""
        is_file = self.timer.subject.built.source == "file"
        return replace(self.recipe, weights=Path(self.weights)) if is_file else self.recipe


def first_that_holds(
    results: Sequence[Result], validation: Validation, holds: Callable[[Validated], bool]
) -> Result | None:
    """Return the first that holds on the images that were held out; the first of all if none does."""
    found = (result for result in results if holds(validation.of(identity(result))))
    return next(found, results[0] if results else None)
