"""What a search found, and the files that it leaves: the page, the figures, and recipes that ``export`` takes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gtp_exporters.measuring.candidate import DENSE, INT8, Running
from gtp_exporters.measuring.choice import Limit, different
from gtp_exporters.measuring.pages import SEARCHED, VALIDATED, cells, make_panel, measure_of, noise_note, shown
from gtp_exporters.measuring.result import Result, is_timed
from gtp_exporters.report.drawing import draw, make_environment
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.recipes import Recipe, write_recipe
from gtp_runtime import atomic
from gtp_runtime.errors import OutputError

FIGURES, PAGE, RECIPE, BETTER = "tune.json", "tune.html", "recipe.yaml", "better.yaml"
TEMPLATE = "tune.html.jinja"
KINDS = ("timed", "front", "the recipe's default", "chosen")  # series of the plot


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        recipe: the model that was tuned, with its own settings.
        directory: where the files are.
        limit: what was asked for.
        running: how files ran where latency was measured.
        search_images, origin: how many images the search saw, and the folder that they are from.
        trials: how many ended; repeats are none.
        results: the dense model, the recipe's default, all trials, and what was on the front in int8.
        front: the timed ones that no other beats in every objective, the fastest first.
        chosen: what keeps the limit best on the search's images, and if possible on those that were held out; None if
            nothing does. It is the dense model where that keeps a latency.
        better: the fastest that loses less than the default and is faster, if possible on both; None if none is.
        nearest: what comes nearest to the limit if nothing keeps it.
        validated: "default", "chosen" and "better" on the images that were held out, timed again beside dense.
        notes: what to know of it.
    """

    recipe: Recipe
    directory: Path
    limit: Limit
    running: Running
    search_images: int
    origin: str
    trials: int
    results: list[Result]
    front: list[Result]
    chosen: Result | None
    better: Result | None
    nearest: Result | None
    validated: Mapping[str, Result]
    notes: list[str] = field(default_factory=list)

    @property
    def dense(self) -> Result:
        """The dense model's result."""
        return self.results[0]

    @property
    def default(self) -> Result:
        """The recipe's default's result."""
        return self.results[1]

    @property
    def problem(self) -> str:
        """Why the limit is not kept; "" if it is."""
        if self.chosen is None:
            return self._missed()
        proven = self.validated["chosen"]
        if self.limit.is_kept(proven):
            return ""
        assert proven.loss is not None and proven.timing is not None
        name = self.chosen.name
        if proven.ratio > 1 or (self.limit.is_of_loss and proven.ratio >= 1):
            return (
                f"{name} is not faster than dense when timed again (ratio {proven.ratio:.3f}): export the dense model"
            )
        if self.limit.is_of_loss:
            return (
                f"{name} loses {self.limit.words(proven.loss)} on the {proven.loss.images} images that were held out, "
                f"{self.limit.option} allows {self.limit.most:g}: give more images, or a smaller limit"
            )
        return (
            f"{name} takes {proven.timing.p50_ms:.2f} ms (median) when timed again, --latency-budget allows "
            f"{self.limit.latency_ms:g} ms: a smaller budget leaves room for noise"
        )

    def _missed(self) -> str:
        nearest = self.nearest
        assert nearest is not None and nearest.timing is not None and nearest.loss is not None
        what = f"{nearest.name}: {nearest.timing.p50_ms:.2f} ms, {nearest.ratio:.3f} of dense"
        if self.limit.latency_ms is not None:
            return f"nothing that was timed is within {self.limit.latency_ms:g} ms; the fastest is {what}"
        unit = "points" if self.limit.max_drop is not None else f"of {nearest.loss.metric}"
        return (
            f"nothing that is faster than dense loses at most {self.limit.most:g} {unit}, the standard error included; "
            f"the nearest is {what}, which loses {self.limit.words(nearest.loss)}"
        )

    @property
    def is_dense(self) -> bool:
        """Whether the dense model is the choice."""
        return self.chosen is not None and self.chosen.method == DENSE

    @property
    def better_holds(self) -> bool:
        """Whether ``better`` is also nearer to dense and faster than the default on images that were held out."""
        return self.better is not None and self.validated["better"].is_better(self.validated["default"])

    @property
    def shown(self) -> list[Result]:
        """What tables show, the fastest first, with marks, and last what a gate refused."""
        extra = (self.dense, self.default, self.chosen, self.better, self.nearest)
        results = different([*self.front, *(one for one in extra if one is not None)])
        marked = [replace(one, name=", ".join([one.name, *self._marks(one)])) for one in results]
        return [*sorted(marked, key=lambda one: one.ratio), *self.refused]

    @property
    def refused(self) -> list[Result]:
        """Plans that were on the front, whose int8 graphs did not pass their gate."""
        return [one for one in self.results if one.precision == INT8 and not is_timed(one)]

    @property
    def shown_validated(self) -> list[Result]:
        """What tables show of what was held out."""
        names = {"better": "beats the default"}
        return [replace(one, name=f"{names.get(name, name)}: {one.name}") for name, one in self.validated.items()]

    def _marks(self, result: Result) -> list[str]:
        marks = {"chosen": self.chosen, "beats the default": self.better}
        return [mark for mark, one in marks.items() if one is not None and one.identity == result.identity]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        named = {name: getattr(self, name) for name in ("dense", "default", "chosen", "better", "nearest")}
        return {
            "ok": not self.problem,
            "problem": self.problem,
            "notes": self.notes,
            "directory": str(self.directory),
            "model": self.recipe.timm,
            "limit": asdict(self.limit),
            "backend": {"name": self.running.backend, "options": dict(self.running.options)},
            "search_images": self.search_images,
            "trials": self.trials,
            "timed": sum(map(is_timed, self.results[2:])),
            "better_holds": self.better_holds,
            **{name: None if result is None else result.to_dict() for name, result in named.items()},
            "validated": {name: result.to_dict() for name, result in self.validated.items()},
            "front": [result.to_dict() for result in self.front],
            "results": [result.to_dict() for result in self.results],
        }


def notes_of(results: list[Result], limit: Limit) -> list[str]:
    """Return what to know of results: that dense keeps the limit, and noise."""
    dense, notes = results[0], []
    if limit.latency_ms is not None and limit.holds(dense) and dense.timing is not None:
        notes.append(
            f"the dense model takes {dense.timing.p50_ms:.2f} ms, which is within {limit.latency_ms:g} ms: there is "
            "nothing to gain by removing tokens"
        )
    noise = noise_note(filter(is_timed, results))
    return [*notes, *([noise] if noise else [])]


def render(outcome: Outcome) -> str:
    """Return the page as HTML, with no script and no need of a network. Whatever comes from files is escaped.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    columns, proven = shown(SEARCHED, outcome.shown), shown(VALIDATED, outcome.shown_validated)
    return str(
        make_environment(Path(__file__).parent)
        .get_template(TEMPLATE)
        .render(
            outcome=outcome,
            plot=plot_outcome(outcome),
            tables=[
                ("The front", [column.head for column in columns], cells(columns, outcome.shown)),
                (
                    "On images that the search never saw",
                    [column.head for column in proven],
                    cells(proven, outcome.shown_validated),
                ),
            ],
        )
    )


def plot_outcome(outcome: Outcome) -> str:
    """Return the plot of a search as SVG: the distance of what was timed against its latency."""
    timed = list(filter(is_timed, outcome.results))
    kinds = {one.identity: 1 for one in outcome.front} | {outcome.default.identity: 2}
    kinds |= {} if outcome.chosen is None else {outcome.chosen.identity: 3}
    series = [[one for one in timed if kinds.get(one.identity, 0) == kind] for kind in range(len(KINDS))]
    axis = replace(measure_of(timed), error=lambda result: 0.0)
    panel = make_panel("", axis, series, timed)
    return draw(outcome.recipe.title, KINDS, [[panel]], joined={"front"})


def write_outcome(outcome: Outcome) -> None:
    """Write the figures, the page, and the recipes: of the choice if its validation passed, and of what is better.

    Raises:
        OutputError: a file cannot be written.
        ConfigError: something that is no recipe stands in the place of one.
    """
    place = outcome.directory
    try:
        atomic.write_bytes(place / FIGURES, json.dumps(outcome.to_dict(), indent=1).encode() + b"\n")
        atomic.write_bytes(place / PAGE, render(outcome).encode())
        for name in (RECIPE, BETTER):
            _put_aside(place / name)
    except OSError as error:
        raise OutputError(f"cannot write {place}: {error.strerror or error}; choose another -o") from error
    if outcome.chosen is not None and not outcome.problem:
        _write_recipe(outcome.recipe, outcome.chosen, place / RECIPE)
    if outcome.better is not None and outcome.better_holds:
        _write_recipe(outcome.recipe, outcome.better, place / BETTER)


def _put_aside(path: Path) -> None:
    """Rename the recipe of an earlier search, which may not hold this one's limit."""
    if path.exists():
        path.replace(path.with_suffix(".earlier.yaml"))


def _write_recipe(recipe: Recipe, result: Result, path: Path) -> None:
    """Write a recipe with the settings of a result; the dense model needs none."""
    if result.method == GTPConfig.name:
        write_recipe(recipe, GTPConfig(**plain_settings(result)), path)


def plain_settings(result: Result) -> dict[str, Any]:
    """Return the settings of a result as arguments."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in result.settings.items()}
