"""Measures the cases of one budget on one backend: accuracy on the same images, latency in turn with the dense one."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gtp_exporters.comparing.cases import Case
from gtp_exporters.comparing.graphs import Graphs
from gtp_exporters.comparing.rows import Row
from gtp_exporters.comparing.runs import Run
from gtp_runtime import Accuracy, ImageSet, Latency, Model, benchmark, load
from gtp_runtime.evaluating import evaluate_each
from gtp_runtime.progress import Progress


@dataclass(frozen=True)
class Measuring:
    """How cases are measured.

    Attributes:
        graphs: makes the graphs.
        images: what accuracy is measured on.
        kept: a folder that keeps how far evaluations are.
        seconds: of timing for all files together, in each round.
        rounds: how often files are loaded anew and timed.
        workers: threads that read images; None is one for each CPU.
        progress: told what is being done.
    """

    graphs: Graphs
    images: ImageSet
    kept: Path
    seconds: float
    rounds: int
    workers: int | None
    progress: Progress

    def measure(self, dense: Case, cases: Sequence[Case], runs: Sequence[Run], what: str) -> list[Row]:
        """Measure cases and the dense model in all runs of one backend; the first run is the baseline's.

        Args:
            dense: the dense model.
            cases: the cases of one budget.
            runs: those of one backend.
            what: what this is, for ``progress``.

        Returns:
            One row for each case in each run that is wanted, and the dense model's in each run.

        Raises:
            as ``export``, ``load`` and ``evaluate``.
        """
        pairs = [(case, run) for run in runs for case in ((dense, *cases) if run.is_wanted else (dense,))]
        paths = [self.graphs.graph(case, run.form) for case, run in pairs]

        def told(task: str, share: float | None = None) -> None:
            self.progress(f"{what}: {task}", share)

        results: list[list[Latency]] = []
        for number in range(self.rounds):
            told(f"loading {len(paths)} graphs")
            with _loaded(paths, [run for _, run in pairs]) as models:
                if not number:
                    accuracies = self._accuracies(models, told)
                    sizes = [_size(model) for model in models]
                results.append(benchmark(models, self.seconds, told))
        latencies = [_middle(found) for found in zip(*results, strict=True)]
        ratios = {(case.label, run.label): ratio for (case, run), (_, ratio) in zip(pairs, latencies, strict=True)}
        return [
            _row(case, run, accuracy, latency, ratios[dense.label, run.label], size)
            for (case, run), accuracy, latency, size in zip(pairs, accuracies, latencies, sizes, strict=True)
        ]

    def _accuracies(self, models: Sequence[Model], progress: Progress) -> list[Accuracy]:
        """Return the accuracy of each file, the dense baseline's first: from what it is in the others' comparison."""
        baseline, *others = models
        kept = [self.kept / f"{_name(model, baseline, self.images)}.json" for model in others]
        found = evaluate_each(others, baseline, self.images, progress, workers=self.workers, resume=kept)
        return [_of_baseline(found[0]), *found]


def _of_baseline(compared: Accuracy) -> Accuracy:
    """Return the dense baseline's accuracy from that of a file beside it."""
    top1, images = compared.dense_top1, compared.images
    error = None if top1 is None or images < 2 else (top1 * (1 - top1) / (images - 1)) ** 0.5
    return Accuracy(
        images,
        top1=top1,
        top1_se=error,
        top5=compared.dense_top5,
        top1_drop=None if top1 is None else 0.0,
        top1_drop_se=None if error is None else 0.0,
        agreement=1.0,
        divergence=0.0,
        divergence_se=None if images < 2 else 0.0,
        unreadable=compared.unreadable,
        unreadable_images=compared.unreadable_images,
    )


@contextmanager
def _loaded(paths: Sequence[Path], runs: Sequence[Run]) -> Iterator[list[Model]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(load(path, run.backend, **run.options)) for path, run in zip(paths, runs, strict=True)
        ]


def _name(model: Model, baseline: Model, images: ImageSet) -> str:
    """Return a name for what is kept of an evaluation: another file, option or folder has another."""
    parts = [model.entry.sha256, baseline.entry.sha256, model.backend.name, str(model.backend.info), images.digest()]
    return sha256("\n".join(parts).encode()).hexdigest()[:32]


def _size(model: Model) -> int:
    data = model.entry.external_data
    return model.entry.size + (0 if data is None else model.manifest.entry(data).size)


def _middle(results: Sequence[Latency]) -> tuple[float, float]:
    """Return the medians of p50 in milliseconds and of its ratio to the dense baseline's over the rounds."""
    return statistics.median(found.p50_ms for found in results), statistics.median(found.ratio for found in results)


def _row(case: Case, run: Run, accuracy: Accuracy, latency: tuple[float, float], dense_ratio: float, size: int) -> Row:
    plan, (p50, ratio) = case.plan, latency
    saved = 1 - plan.ratio
    return Row(
        method=case.method,
        budget={} if case.budget is None else case.budget.given,
        backend=run.backend,
        precision=run.precision,
        num_prop=list(plan.num_prop),
        settings=plan.settings.to_dict(),
        command=list(case.command),
        macs=plan.backbone,
        macs_ratio=plan.ratio,
        top1=accuracy.top1,
        top1_se=accuracy.top1_se,
        top5=accuracy.top5,
        top1_drop=accuracy.top1_drop,
        top1_drop_se=accuracy.top1_drop_se,
        images=accuracy.images,
        unreadable=accuracy.unreadable,
        agreement=accuracy.agreement or 0.0,
        divergence=accuracy.divergence or 0.0,
        divergence_se=accuracy.divergence_se,
        p50_ms=p50,
        ratio=ratio,
        share=(1 - ratio / dense_ratio) / saved if saved > 0 else None,
        file_bytes=size,
        published=case.published,
    )
