"""Measures a comparison part by part, a budget on a backend each; a part that was measured before is not again."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace

from gtp_exporters.comparing.cases import Case, Cases, Skipped
from gtp_exporters.comparing.graphs import Graphs
from gtp_exporters.comparing.measuring import Measuring
from gtp_exporters.comparing.methods import Budget
from gtp_exporters.comparing.rows import Row
from gtp_exporters.comparing.runs import Run
from gtp_exporters.comparing.work import Work
from gtp_exporters.errors import LimitError
from gtp_runtime import load
from gtp_runtime.errors import BackendMissingError


def possible_runs(runs: Sequence[Run], dense: Case, graphs: Graphs) -> tuple[list[Run], list[Skipped]]:
    """Return the runs whose backend can run the dense model in that precision, and the others with the reason.

    Raises:
        NoClassesError: a model that gives features.
        BackendMissingError, LimitError: no run that is wanted is possible, or a baseline is not.
    """
    found: list[Run] = []
    skipped: list[Skipped] = []
    for run in runs:
        try:
            with load(graphs.graph(dense, run.form), run.backend, **run.options) as model:
                model.check_classes("accuracy")
            found.append(run)
        except (BackendMissingError, LimitError) as error:
            last = run is runs[-1] and not any(run.is_wanted for run in found)
            if run.is_baseline or last:
                raise
            skipped.append(Skipped(run.label, str(error)))
    used = {run.backend for run in found if run.is_wanted}
    return [run for run in found if run.backend in used], skipped


def measure_all(
    cases: Cases, runs: Sequence[Run], budgets: Sequence[Budget], measuring: Measuring, work: Work
) -> list[Row]:
    """Return all rows: those of the dense model first, then by budget."""
    backends = list(dict.fromkeys(run.backend for run in runs))
    parts = [(budget, backend) for budget in dict.fromkeys(budgets) if cases.of(budget) for backend in backends]
    rows: list[Row] = []
    for number, (budget, backend) in enumerate(parts, 1):
        own = [run for run in runs if run.backend == backend]
        what = f"part {number} of {len(parts)}, {budget.label} on {backend}"
        rows += _part(cases.dense, cases.of(budget), own, measuring, work, what)
        if backend == backends[-1]:
            measuring.graphs.remove(cases.of(budget), [run.form for run in runs])
    return [*_dense(rows, cases.dense.method), *(row for row in rows if row.method != cases.dense.method)]


def _part(
    dense: Case, cases: Sequence[Case], runs: Sequence[Run], measuring: Measuring, work: Work, what: str
) -> list[Row]:
    name = json.dumps([[case.key() for case in cases], [[run.label, dict(run.options)] for run in runs]])
    found = work.find(name)
    if found is None:
        found = measuring.measure(dense, cases, runs, what)
        work.keep(name, found)
    return found


def _dense(rows: Sequence[Row], method: str) -> list[Row]:
    """Return one row of the dense model for each run: it was timed anew in every part."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.method == method:
            runs.setdefault((row.backend, row.precision), []).append(row)
    return [
        replace(
            found[0],
            p50_ms=statistics.median(row.p50_ms for row in found),
            ratio=statistics.median(row.ratio for row in found),
        )
        for found in runs.values()
    ]
