"""The cases of a comparison: every method at every budget, where it fits the model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gtp_exporters.comparing.methods import DENSE, Budget, choose
from gtp_exporters.comparing.published import read_published
from gtp_models.errors import ConfigError
from gtp_models.methods import make_settings
from gtp_models.methods.settings import Settings
from gtp_models.plan import Plan, make_plan
from gtp_models.recipes import Recipe


@dataclass(frozen=True)
class Case:
    """A method at a budget.

    Attributes:
        method: its name in the table.
        budget: what it may spend; None for the dense model.
        settings: as ``export`` takes them.
        plan: what happens in each layer.
        command: options of ``gtp-export export`` that give the same settings.
        published: published top-1 of these settings, in percent; None where there is none.
    """

    method: str
    budget: Budget | None
    settings: Settings
    plan: Plan
    command: tuple[str, ...]
    published: float | None

    @property
    def label(self) -> str:
        """The case in words."""
        return self.method if self.budget is None else f"{self.method} at {self.budget.label}"

    def key(self) -> str:
        """Return a text that tells the settings from others."""
        return json.dumps([self.method, self.settings.name, self.settings.to_dict()])


@dataclass(frozen=True)
class Skipped:
    """What could not be compared, and the reason in words."""

    what: str
    why: str


@dataclass(frozen=True)
class Cases:
    """The dense case, the others, and what does not fit the model."""

    dense: Case
    others: list[Case]
    skipped: list[Skipped]

    def of(self, budget: Budget) -> list[Case]:
        """Return the cases at a budget."""
        return [case for case in self.others if case.budget == budget]


def plan_cases(recipe: Recipe, model: Any, names: Sequence[str], budgets: Sequence[Budget]) -> Cases:
    """Plan every method at every budget.

    Args:
        recipe: the recipe.
        model: its timm model, which may be on the meta device.
        names: methods, as ``check_names`` takes them.
        budgets: what they may spend.

    Raises:
        ConfigError: nothing fits.
        UnsupportedModelError: the model cannot be patched.
    """
    published = read_published(recipe)
    settings = make_settings(DENSE)
    dense = Case(DENSE, None, settings, make_plan(model, settings), ("--method", DENSE), published.dense)
    others, skipped = [], []
    for budget in dict.fromkeys(budgets):
        for name in names:
            try:
                choice = choose(name, recipe, budget)
                settings = choice.settings(recipe, budget)
                plan = make_plan(model, settings)
            except ConfigError as error:
                skipped.append(Skipped(f"{name} at {budget.label}", str(error)))
                continue
            top1 = published.top1(settings)
            others.append(Case(name, budget, settings, plan, tuple(choice.command(budget)), top1))
    if not others:
        raise ConfigError(f"no method fits: {'; '.join(f'{entry.what}: {entry.why}' for entry in skipped)}")
    return Cases(dense, others, skipped)
