"""The end of a search: the best are timed again in turn, one is chosen, validated on other images, and written."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from gtp_exporters.tuning.front import beating, finalists, front
from gtp_exporters.tuning.options import TuneOptions
from gtp_exporters.tuning.outcome import Outcome, called, write_outcome
from gtp_exporters.tuning.results import Result, identity, timed, timed_again
from gtp_exporters.tuning.search import TASK, Search
from gtp_exporters.tuning.shards import Split
from gtp_exporters.tuning.timing import BASELINE, Timer
from gtp_exporters.tuning.validation import Validated, validate_graphs
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
        for graph in graphs.values():
            shutil.rmtree(graph.parent, ignore_errors=True)
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
        """Choose among the results that have a graph, and validate."""
        limit, default = self.options.limit, results[0]
        last = [result for result in results if identity(result) in graphs and result.timing is not None]
        chosen, better = limit.best(last), next(iter(beating(last, default)), None)
        named = {"default": default, "chosen": chosen, "better": better}
        wanted = {name: graphs[identity(result)] for name, result in named.items() if result is not None}
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
            validated=self._validated(wanted),
        )

    def _validated(self, graphs: dict[str, Path]) -> dict[str, Validated]:
        """Validate each file once; two names may have the same."""
        files = list(dict.fromkeys(graphs.values()))
        running, workers, images = self.options.running, self.timer.workers, self.split.held_out
        found = validate_graphs(self.timer.baseline, files, images, running, workers, self._tell)
        by_file = dict(zip(files, found, strict=True))
        return {name: by_file[file] for name, file in graphs.items()}

    def _tell(self, task: str, share: float | None = None) -> None:
        """Progress of other tasks than the search, whose shares count no trials."""
        self.progress(task, share if task == TASK else None)

    def _own_weights(self) -> Recipe:
        """Return the recipe with the weights that were used, so that an export of it needs no --weights."""
        is_file = self.timer.subject.built.source == "file"
        return replace(self.recipe, weights=Path(self.weights)) if is_file else self.recipe
