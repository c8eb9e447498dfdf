"""A comparison: methods and budgets that are asked for, the cases that they are on a model, and what was measured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtp_exporters.errors import LimitError
from gtp_exporters.measuring.candidate import DENSE, PLAIN
from gtp_exporters.measuring.result import Result
from gtp_models.errors import ConfigError
from gtp_models.heads import DENSE as PATCHES
from gtp_models.methods import METHODS, make_settings
from gtp_models.methods.gtp.config import PRESETS
from gtp_models.methods.settings import Settings, is_number
from gtp_models.recipes import Recipe
from gtp_models.schedules import FITTED, INNER, is_fitted
from gtp_runtime.latency import check_duration
from gtp_runtime.messages import option_words
from gtp_runtime.metrics import Own

if TYPE_CHECKING:
    from gtp_models.plan import Plan  # which needs torch

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


def choose(name: str, recipe: Recipe, budget: Budget, output: str = "auto") -> Choice:
    """Return what a name means for a recipe, a budget and an output, as ``ExportOptions`` takes it.

    Raises:
        ConfigError: the recipe has no published settings for this budget.
    """
    if name == "measured" and output in PATCHES:
        return Choice(GTP, name, {"schedule": INNER})
    if name in PRESETS:
        return Choice(GTP, name)
    if name == "prune":
        return Choice(GTP, "paper", {"propagation": "None"})
    if name in FITTED_NAMES:
        method, preset = FITTED_NAMES[name]
        return Choice(method, preset, {"schedule": FITTED})
    if name == "tome-2":
        return Choice("tome", None, {"schedule": INNER if output in PATCHES else PRESETS["measured"]["schedule"]})
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
    plan: "Plan"
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


def plan_cases(
    recipe: Recipe,
    model: Any,
    names: Sequence[str],
    budgets: Sequence[Budget],
    output: str = "auto",
    plan: "Callable[[Settings], Plan] | None" = None,
) -> Cases:
    """Plan every method at every budget.

    Args:
        recipe: the recipe.
        model: its timm model, which may be on the meta device.
        names: methods, as ``check_names`` takes them.
        budgets: what they may spend.
        output: what the model gives, as ``ExportOptions`` takes it.
        plan: makes the plan of settings (default: ``make_plan`` of the model).

    Raises:
        ConfigError: nothing fits.
        UnsupportedModelError: the model cannot be patched.
    """
    from gtp_models.fitting import usual_schedule
    from gtp_models.plan import make_plan

    published, plan = read_published(recipe), plan or partial(make_plan, model)
    dense = Case(DENSE, None, plan(make_settings(DENSE)), ("--method", DENSE), published.dense)
    others, skipped = [], []
    for budget in dict.fromkeys(budgets):
        for name in names:
            try:
                choice = choose(name, recipe, budget, output)
                settings = choice.settings(recipe, budget)
                unfitted = settings if is_fitted(settings.schedule) else None
                usual = (
                    replace(settings, schedule=usual_schedule(settings, output in PATCHES)) if unfitted else settings
                )
                planned = plan(usual)
            except ConfigError as error:
                skipped.append(Skipped(f"{name} at {budget.label}", str(error)))
                continue
            command = tuple(choice.command(budget))
            others.append(Case(name, budget, planned, command, published.top1(settings), unfitted))
    if not others:
        raise ConfigError(f"no method fits: {'; '.join(f'{entry.what}: {entry.why}' for entry in skipped)}")
    return Cases(dense, others, skipped)


BUDGETS = (Budget(keep=0.85), Budget(keep=0.75), Budget(keep=0.6))
SECONDS, ROUNDS = 3.0, 3
FORMAT = "gtp-export comparison 2"


@dataclass(frozen=True)
class CompareOptions:
    """What is compared and how.

    Attributes:
        methods: names of methods (``methods.check_names``); None is ``methods.default_names``.
        budgets: what the methods may spend.
        backends: names of ``measured_backends``; those that run no ONNX files get what the graphs are converted to.
        precisions: precisions of the files; where a backend can compute in one by itself, it does.
        data: a folder of test images (default: the recipe's own).
        labels: a file that says the class of each image of ``data``.
        limit: images at most, spread over the folder.
        workers: threads that read images; None is one for each CPU.
        batch: images per run.
        calib_data: training images that candidates are calibrated on where they need it (default: the recipe's own).
        seconds: of timing in each round, for all files of a budget together.
        rounds: how often files are loaded anew and timed; the one with the median ratio is reported.
        footprint: measure peak memory and cold start, in a process of its own for each file.
        backend_options: options of the backends; ``threads`` is 1 by default.
        output, layers: what the models give, as ``ExportOptions`` takes them.
        masks, depths: a folder with the truth of each pixel, for the outputs of a whole module (``evaluate``).
        classes_from: an .npz file of text embeddings, which make classes of features (``gtp_runtime.prompts``).
        metric: whose distance from the dense model is compared (``gtp_runtime.metrics.as_metric``; default: by the
            kind of output).

    Raises:
        LimitError, InputError: a value that is not allowed.
    """

    methods: tuple[str, ...] | None = None
    budgets: tuple[Budget, ...] = BUDGETS
    backends: tuple[str, ...] = ("onnxruntime",)
    precisions: tuple[str, ...] = (PLAIN,)
    data: Path | None = None
    labels: Path | None = None
    limit: int | None = None
    workers: int | None = None
    batch: int = 1
    calib_data: Path | None = None
    seconds: float = SECONDS
    rounds: int = ROUNDS
    footprint: bool = True
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    output: str = "auto"
    layers: tuple[int, ...] = ()
    classes_from: Path | None = None
    metric: Own | None = None
    masks: Path | None = None
    depths: Path | None = None

    def __post_init__(self) -> None:
        for name in ("methods", "budgets", "backends", "precisions"):
            if getattr(self, name) == ():
                raise LimitError(f"{name} is empty: name at least one")
        wrong = [budget for budget in self.budgets if not isinstance(budget, Budget)]
        if wrong:
            raise LimitError(f"budgets={wrong[0]!r}: give Budget(keep=0.75) or Budget(num_prop=8)")
        for name in ("limit", "rounds", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LimitError(f"{name}={value}: give at least 1")
        if self.data is None and self.labels is not None:
            raise LimitError("labels say which classes the images of data have: give --data DIR as well")
        check_duration(self.seconds)


@dataclass(frozen=True)
class Comparison:
    """All results, and what they depend on.

    Attributes:
        model, title, timm: the recipe's names.
        weights: where the weights come from.
        data: name of the folder of images.
        images: how many were measured; ``unreadable`` more could not be read.
        batch: images per run.
        seconds, rounds: of timing, as in ``CompareOptions``.
        options: options of each backend.
        tools: versions of packages.
        rows: the dense model first, then by budget and method.
        skipped: what could not be compared.
        sources: of the published figures, by what they are of.
        class_order, class_folders: what said the classes of the images' folders, as in ``gtp_runtime.ImageSet``.
    """

    model: str
    title: str
    timm: str
    weights: str
    data: str
    images: int
    unreadable: int
    batch: int
    seconds: float
    rounds: int
    options: dict[str, dict[str, Any]]
    tools: dict[str, str]
    rows: list[Result]
    skipped: list[Skipped] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    class_order: str | None = None
    class_folders: dict[str, int] | None = None
    format: str = FORMAT

    @property
    def has_classes(self) -> bool:
        """Whether the classes of the images are known."""
        return all(row.loss is not None and row.loss.top1 is not None for row in self.rows)

    def runs(self) -> list[tuple[str, str]]:
        """Return backend and precision of every table."""
        return list(dict.fromkeys((row.backend, row.precision) for row in self.rows))

    def of(self, backend: str, precision: str) -> list[Result]:
        """Return the rows of a table."""
        return [row for row in self.rows if (row.backend, row.precision) == (backend, precision)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"rows": [row.to_dict() for row in self.rows]}
