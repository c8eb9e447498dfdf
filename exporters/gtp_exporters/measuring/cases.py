"""The cases of a grid: every method at every budget, where it fits the model, with what was published of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gtp_exporters.measuring.candidate import DENSE
from gtp_exporters.measuring.methods import AMOUNT, TOP1, Budget, Skipped, choose, published_choice, published_entries
from gtp_models.errors import ConfigError
from gtp_models.fitting import usual_schedule
from gtp_models.methods import make_settings
from gtp_models.methods.settings import Settings, is_number
from gtp_models.plan import Plan, make_plan
from gtp_models.recipes import Recipe
from gtp_models.schedules import is_fitted


@dataclass(frozen=True)
class Published:
    """Published accuracies of a recipe, in percent, on ImageNet-1k.

    A recipe's ``reference`` lists them by method, ``gtp: [{num_prop: 8, sparsity: 0.6, alpha: 0.1, top1: 81.46}]``,
    with ``gtp_source``; ``dense_top1`` with ``dense_source``.

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
        (published_choice(name, entry).settings(recipe, Budget(num_prop=entry[AMOUNT])), float(entry[TOP1]))
        for name in lists
        for entry in published_entries(recipe, name)
    ]
    sources = {name: str(reference.get(f"{name}_source", "")) for name in (DENSE, *lists)}
    top1 = float(dense) if dense is not None and is_number(dense) else None
    return Published(top1, rows, {name: source for name, source in sources.items() if source})


@dataclass(frozen=True)
class Case:
    """A method at a budget.

    Attributes:
        method: its name in the table.
        budget: what it may spend; None for the dense model.
        plan: what happens in each layer, with the settings.
        command: options of ``gtp-export export`` that give the same settings.
        published: published top-1 of these settings, in percent; None where there is none.
        unfitted: settings whose schedule is still to be fitted; the plan is then that of the usual one. None otherwise.
    """

    method: str
    budget: Budget | None
    plan: Plan
    command: tuple[str, ...]
    published: float | None
    unfitted: Settings | None = None


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
    dense = Case(DENSE, None, make_plan(model, make_settings(DENSE)), ("--method", DENSE), published.dense)
    others, skipped = [], []
    for budget in dict.fromkeys(budgets):
        for name in names:
            try:
                choice = choose(name, recipe, budget)
                settings = choice.settings(recipe, budget)
                unfitted = settings if is_fitted(settings.schedule) else None
                usual = replace(settings, schedule=usual_schedule(settings)) if unfitted else settings
                plan = make_plan(model, usual)
            except ConfigError as error:
                skipped.append(Skipped(f"{name} at {budget.label}", str(error)))
                continue
            command = tuple(choice.command(budget))
            others.append(Case(name, budget, plan, command, published.top1(settings), unfitted))
    if not others:
        raise ConfigError(f"no method fits: {'; '.join(f'{entry.what}: {entry.why}' for entry in skipped)}")
    return Cases(dense, others, skipped)
