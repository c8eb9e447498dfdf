"""What a grid compares, by name: GTP's presets, pruning, published settings, and every other method, at budgets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gtp_exporters.errors import LimitError
from gtp_exporters.measuring.candidate import DENSE
from gtp_models.errors import ConfigError
from gtp_models.methods import METHODS
from gtp_models.methods.gtp.config import PRESETS
from gtp_models.methods.settings import Settings, is_number
from gtp_models.recipes import Recipe
from gtp_models.schedules import FITTED
from gtp_runtime.messages import option_words

GTP, PUBLISHED = "gtp", "published"
FITTED_NAMES = {"fitted": (GTP, "measured"), "tome-fitted": ("tome", None)}  # methods with their presets
TOP1, AMOUNT = "top1", "num_prop"  # of a published entry
SPECIAL = {
    **{name: f"GTP, --preset {name}" for name in PRESETS},
    "prune": "GTP, --preset paper without propagation",
    "tome-2": "token merging in the layers of --preset measured",
    "fitted": "GTP, --preset measured --schedule fitted, on calibration images",
    "tome-fitted": "token merging with --schedule fitted, on the same images",
    PUBLISHED: "GTP with the published settings of this num_prop, where the recipe has them",
}


@dataclass(frozen=True)
class Budget:
    """How much a method may spend: ``keep``, a share of the dense model's MACs, or ``num_prop`` tokens a layer.

    Raises:
        ConfigError: a value that is not allowed.
    """

    keep: float | None = None
    num_prop: int | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 < self.keep < 1:
            raise ConfigError(f"budget {self.keep:g}: give shares of the dense model's MACs between 0 and 1, like 0.75")
        if self.num_prop is not None and self.num_prop < 1:
            raise ConfigError(f"num_prop {self.num_prop}: give numbers of tokens of at least 1")

    @property
    def values(self) -> dict[str, Any]:
        """The setting by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def label(self) -> str:
        """It in words: "0.75", or "8 a layer"."""
        return f"{self.keep:g}" if self.keep is not None else f"{self.num_prop} a layer"


@dataclass(frozen=True)
class Choice:
    """A method with its preset and further settings; the budget is still open."""

    method: str
    preset: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, recipe: Recipe, budget: Budget) -> Settings:
        """Return the settings for a recipe. Raises as ``Recipe.settings``."""
        return recipe.settings(self.method, self.preset, **self.values, **budget.values)

    def command(self, budget: Budget) -> list[str]:
        """Return the options of ``gtp-export export`` that mean the same."""
        own = {"preset": self.preset} if self.method == GTP else {"method": self.method}
        return option_words(**own, **self.values, **budget.values)


def default_names(has_images: bool = True) -> tuple[str, ...]:
    """Return what is compared by default: each form of GTP once, then every other method; fitted ones with images."""
    left_out = {PUBLISHED} if has_images else {PUBLISHED, *FITTED_NAMES}
    return (*(name for name in SPECIAL if name not in left_out), *_others())


def check_names(names: Sequence[str]) -> None:
    """Raise ``LimitError`` unless every name can be compared."""
    known = (*SPECIAL, GTP, *_others())
    unknown = [name for name in names if name not in known]
    if unknown:
        extra = ": the dense model is always compared" if unknown == [DENSE] else ""
        raise LimitError(f"methods={', '.join(unknown)} cannot be chosen{extra}; choose from {', '.join(known)}")


def choose(name: str, recipe: Recipe, budget: Budget) -> Choice:
    """Return what a name means for a recipe and a budget.

    Raises:
        ConfigError: the recipe has no published settings for this budget.
    """
    if name in PRESETS:
        return Choice(GTP, name)
    if name == "prune":
        return Choice(GTP, "paper", {"propagation": "None"})
    if name in FITTED_NAMES:
        method, preset = FITTED_NAMES[name]
        return Choice(method, preset, {"schedule": FITTED})
    if name == "tome-2":
        return Choice("tome", None, {"schedule": PRESETS["measured"]["schedule"]})
    return Choice(GTP, "paper", published_settings(recipe, budget)) if name == PUBLISHED else Choice(name)


def _others() -> tuple[str, ...]:
    return tuple(name for name in METHODS.names() if name not in (GTP, DENSE))


def published_settings(recipe: Recipe, budget: Budget) -> dict[str, Any]:
    """Return the published settings of GTP at a budget, without its amount.

    Raises:
        ConfigError: there are none.
    """
    for entry in published_entries(recipe, GTP):
        if entry[AMOUNT] == budget.num_prop:
            return _settings(entry)
    raise ConfigError(f"recipe {recipe.name} has no published settings for {budget.label}")


def published_choice(name: str, entry: dict[str, Any]) -> Choice:
    """Return the method of a published entry with its settings."""
    return Choice(name, "paper" if name == GTP else None, _settings(entry))


def _settings(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in (TOP1, AMOUNT)}


def published_entries(recipe: Recipe, name: str) -> Iterator[dict[str, Any]]:
    """Yield the entries that have an amount and an accuracy; a recipe may note others as it likes."""
    listed = recipe.reference.get(name)
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get(AMOUNT), int) and is_number(entry.get(TOP1)):
            yield entry


@dataclass(frozen=True)
class Skipped:
    """What could not be compared, and the reason in words."""

    what: str
    why: str
