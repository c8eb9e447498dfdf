"""What a search found, and the files that it leaves: the page, the figures, and recipes that ``export`` takes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gtp_exporters.errors import OutputError
from gtp_exporters.tuning.front import Limit
from gtp_exporters.tuning.results import Result
from gtp_exporters.tuning.timing import Running
from gtp_exporters.tuning.validation import Validated
from gtp_models.recipes import Recipe, write_recipe
from gtp_runtime import atomic

FIGURES, PAGE, RECIPE, BETTER = "tune.json", "tune.html", "recipe.yaml", "better.yaml"


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        recipe: the model that was tuned, with its own settings.
        directory: where the files are.
        limit: what was asked for.
        running: how files ran where latency was measured.
        search_images, origin: how many images the search saw, and the folder that they are from.
        trials: how many ended.
        results: all of them, the recipe's default first.
        front: the timed ones that no other beats in every objective, the fastest first.
        default: the recipe's default.
        chosen: what keeps the limit best on the search's images, and if possible on those that were held out; None if
            nothing does.
        better: the fastest that loses less than the default and is faster, if possible on both; None if none is.
        nearest: what comes nearest to the limit if nothing keeps it.
        validated: "default", "chosen" and "better" on the images that were held out, where they are known.
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
    default: Result
    chosen: Result | None
    better: Result | None
    nearest: Result | None
    validated: Mapping[str, Validated]

    @property
    def problem(self) -> str:
        """Why the limit is not kept; "" if it is."""
        if self.chosen is None:
            return self._missed()
        found = self.validated["chosen"]
        if self.limit.kept_by(found.loss, found.p50_ms):
            return ""
        if self.limit.max_drop is not None:
            lost = f"{found.loss.limited:.2f} ± {found.loss.limited_se:.2f} points"
            return (
                f"{called(self.chosen)} loses {lost} on the {found.loss.images} images that were held out, "
                f"--max-drop allows {self.limit.max_drop:g}: give more images, or a smaller drop"
            )
        return (
            f"{called(self.chosen)} takes {found.p50_ms:.2f} ms (median) when timed again, --latency-budget "
            f"allows {self.limit.latency_ms:g} ms: a smaller budget leaves room for noise"
        )

    def _missed(self) -> str:
        assert self.nearest is not None and self.nearest.timing is not None and self.nearest.loss is not None
        timing, loss = self.nearest.timing, self.nearest.loss
        what = f"{called(self.nearest)}: {timing.p50_ms:.2f} ms, {timing.ratio:.3f} of dense"
        if self.limit.latency_ms is not None:
            return f"nothing that was timed is within {self.limit.latency_ms:g} ms; the fastest is {what}"
        lost = f"{loss.limited:.2f} ± {loss.limited_se:.2f} points"
        return (
            f"nothing that is faster than dense loses at most {self.limit.max_drop:g} points, the standard error "
            f"included; the nearest is {what}, which loses {lost}"
        )

    @property
    def better_holds(self) -> bool:
        """Whether ``better`` also loses less and is faster than the default on images that were held out."""
        return self.better is not None and self.validated["better"].beats(self.validated["default"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        named = {name: getattr(self, name) for name in ("default", "chosen", "better", "nearest")}
        return {
            "ok": not self.problem,
            "problem": self.problem,
            "directory": str(self.directory),
            "model": self.recipe.timm,
            "limit": asdict(self.limit),
            "backend": {"name": self.running.backend, "options": dict(self.running.options)},
            "search_images": self.search_images,
            "trials": self.trials,
            "timed": sum(result.timing is not None for result in self.results) - 1,
            "better_holds": self.better_holds,
            **{name: None if result is None else result.to_dict() for name, result in named.items()},
            "validated": {name: found.to_dict() for name, found in self.validated.items()},
            "front": [result.to_dict() for result in self.front],
            "results": [result.to_dict() for result in self.results],
        }


def called(result: Result) -> str:
    """What people call a result."""
    return "the recipe's default" if result.trial is None else f"trial {result.trial}"


def write_outcome(outcome: Outcome) -> None:
    """Write the figures, the page, and the recipes: of the choice if its validation passed, and of what is better.

    Raises:
        OutputError: a file cannot be written.
        ConfigError: something that is no recipe stands in the place of one.
    """
    from gtp_exporters.tuning.page import render

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
    write_recipe(recipe, result.proposal.settings, path)
