"""Published figures of a recipe: accuracies of the dense model, and of methods with the settings that gave them.

A recipe's ``reference`` lists them by method, ``gtp: [{num_prop: 8, sparsity: 0.6, alpha: 0.1, top1: 81.46}]``, with
``gtp_source``; ``dense_top1`` with ``dense_source``. All are percent, on ImageNet-1k.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gtp_exporters.comparing.methods import GTP, Budget, Choice
from gtp_models.errors import ConfigError
from gtp_models.methods.settings import Settings, is_number
from gtp_models.recipes import Recipe

TOP1, AMOUNT = "top1", "num_prop"


@dataclass(frozen=True)
class Published:
    """Published accuracies, in percent.

    Attributes:
        dense: top-1 of the dense model; None where unknown.
        rows: settings and their top-1.
        sources: where the figures come from, by what they are of.
    """

    dense: float | None
    rows: list[tuple[Settings, float]]
    sources: dict[str, str]

    def top1(self, settings: Settings) -> float | None:
        """Return the published top-1 of exactly these settings; None where there is none."""
        return next((top1 for known, top1 in self.rows if known == settings), None)


def read_published(recipe: Recipe) -> Published:
    """Return the published figures of a recipe.

    Raises:
        ConfigError: an entry with settings that are not valid.
    """
    reference = recipe.reference
    dense = reference.get("dense_top1")
    lists = [name for name, value in reference.items() if isinstance(value, list)]
    rows = [
        (_choice(name, entry).settings(recipe, Budget(num_prop=entry[AMOUNT])), float(entry[TOP1]))
        for name in lists
        for entry in _entries(recipe, name)
    ]
    sources = {name: str(reference.get(f"{name}_source", "")) for name in ("dense", *lists)}
    return Published(
        float(dense) if dense is not None and is_number(dense) else None,
        rows,
        {name: source for name, source in sources.items() if source},
    )


def published_settings(recipe: Recipe, budget: Budget) -> dict[str, Any]:
    """Return the published settings of GTP at a budget, without its amount.

    Raises:
        ConfigError: there are none.
    """
    found = [entry for entry in _entries(recipe, GTP) if entry[AMOUNT] == budget.num_prop]
    if not found:
        raise ConfigError(f"recipe {recipe.name} has no published settings for {budget.label}")
    return _given(found[0])


def _choice(name: str, entry: dict[str, Any]) -> Choice:
    return Choice(name, "paper" if name == GTP else None, _given(entry))


def _given(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in (TOP1, AMOUNT)}


def _entries(recipe: Recipe, name: str) -> Iterator[dict[str, Any]]:
    """Yield the entries that have an amount and an accuracy; a recipe may note others as it likes."""
    listed = recipe.reference.get(name)
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get(AMOUNT), int) and is_number(entry.get(TOP1)):
            yield entry
