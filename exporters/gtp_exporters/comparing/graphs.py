"""The graphs of a comparison: exported into its working folder, each an artifact directory of its own."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gtp_exporters.comparing.cases import Case
from gtp_exporters.comparing.runs import Form
from gtp_exporters.options import ExportOptions
from gtp_exporters.pipeline import export
from gtp_models.recipes import Recipe
from gtp_runtime.manifest import FILE_NAME, find_graph
from gtp_runtime.progress import Progress


@dataclass(frozen=True)
class Graphs:
    """Exports cases on demand; a graph that is there is not made again.

    Attributes:
        place: the folder of the graphs.
        recipe, weights, seed: the model.
        batch: images per run.
        calib_data: images that int8 is calibrated on; None are the recipe's own.
        threads: CPU threads, 0 for all.
        progress: told what is being done.
    """

    place: Path
    recipe: Recipe
    weights: str
    seed: int
    batch: int
    calib_data: Path | None
    threads: int
    progress: Progress

    def graph(self, case: Case, form: Form) -> Path:
        """Return the graph of a case in a form. Raises as ``export`` does."""
        directory = self._directory(case, form)
        if not (directory / FILE_NAME).exists():
            self._export(case, form, directory)
        return find_graph(directory, form.precision)

    def remove(self, cases: Iterable[Case], forms: Iterable[Form]) -> None:
        """Remove the graphs of cases, to make room on the disk."""
        for case in cases:
            for form in forms:
                shutil.rmtree(self._directory(case, form), ignore_errors=True)

    def _directory(self, case: Case, form: Form) -> Path:
        name = sha256(f"{case.key()}{form}".encode()).hexdigest()[:16]
        return self.place / name

    def _export(self, case: Case, form: Form, directory: Path) -> None:
        def told(task: str, share: float | None = None) -> None:  # noqa: ARG001
            self.progress(f"exporting {case.label}, {form.precision}: {task}")  # a share is one of the images

        options = ExportOptions(
            batch=self.batch,
            dense=False,
            trace=False,
            target=form.target,
            precision=form.precision,
            calib_data=self.calib_data,
        )
        export(
            self.recipe,
            directory,
            settings=case.settings,
            weights=self.weights,
            seed=self.seed,
            options=options,
            check=False,  # what a graph answers is measured next
            report=False,
            threads=self.threads,
            progress=told,
        )
