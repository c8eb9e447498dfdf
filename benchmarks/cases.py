"""Which settings are measured against each other: lists of a label and settings, in this one place.

A method, preset, schedule or selection to measure is one more line. ``amount`` is GTP's number of tokens a layer,
whose MACs all others spend.
"""

from dataclasses import replace
from typing import Any

from baselines import ATCSettings, PiToMeSettings

from gtp_models import ConfigError, GTPConfig, Recipe, Settings, make_plan, make_settings
from gtp_models.methods.settings import ModelShape
from gtp_models.plan import model_shape

Cases = list[tuple[str, Settings]]
SCHEDULES = ("even", "early", "late", "every:3", "aligned:8")
SELECTIONS = ("MixedAttnMax", "CLSAttnMax", "CLSAttnMean", "IMGAttnMax", "DiagAttnMax")


class Choice:
    """The settings to measure on one model, which may stand on the meta device."""

    def __init__(self, recipe: Recipe, model: Any) -> None:
        self.recipe, self.model, self.shape = recipe, model, model_shape(model)

    def paper(self, **values: Any) -> GTPConfig:
        """Return the paper's form of GTP, with the recipe's neighbours."""
        own = {name: self.recipe.gtp[name] for name in ("alpha", "num_neighbours") if name in self.recipe.gtp}
        return GTPConfig.paper(**own | values)

    def exported(self, amount: int) -> Cases:
        """Methods whose latency and accuracy are measured."""
        return [
            ("drop", make_settings("drop", num_prop=amount)),
            ("gtp", self.paper(num_prop=amount)),
            ("gtp-cls", self.paper(num_prop=amount, selection="CLSAttnMax")),
            ("prune", self.paper(num_prop=amount, graph="None", propagation="None")),
            *self._with_drop("measured", GTPConfig.measured(num_prop=amount)),
            ("tome", clamped(make_settings("tome", num_prop=amount), self.shape)),
        ]

    def _with_drop(self, name: str, settings: Settings) -> Cases:
        """Return settings and the free drop of their schedule, if it fits."""
        try:
            schedule = make_plan(self.model, settings).num_prop
        except ConfigError:
            return [(name, settings)]
        return [(name, settings), (f"drop-{name}", make_settings("drop", num_prop=schedule))]

    def results(self, keep: float) -> Cases:
        """Methods at a share of the MACs, whose accuracy is held against their latency."""
        return [
            ("measured", GTPConfig.measured(keep=keep)),
            ("measured-3", GTPConfig.measured(keep=keep, schedule="steps:3+aligned")),
            ("tome", make_settings("tome", keep=keep)),
            ("tome-2", make_settings("tome", keep=keep, schedule="steps:2+aligned")),
            ("paper", self.paper(keep=keep)),
            ("prune", self.paper(keep=keep, graph="None", propagation="None")),
            ("drop", make_settings("drop", keep=keep)),
        ]

    def methods(self, amount: int) -> Cases:
        """Methods whose accuracy is measured; Mean's new token takes the place of one more that leaves."""
        return [
            *self.exported(amount),
            ("measured-each", GTPConfig.measured(num_prop=amount, schedule=None)),
            ("mean", self.paper(num_prop=amount + 1, graph="None", propagation="Mean")),
            ("pitome", clamped(PiToMeSettings(amount), self.shape)),
            ("atc-keys", ATCSettings(amount, measure="keys")),
            ("atc-tokens", ATCSettings(amount, measure="tokens")),
        ]

    def schedules(self, amount: int) -> Cases:
        """GTP's schedules."""
        keep = self.keep(amount)
        return [(kind, self.paper(keep=keep, schedule=kind)) for kind in SCHEDULES]

    def selections(self, amount: int) -> Cases:
        """GTP's selections."""
        return [(name, self.paper(num_prop=amount, selection=name)) for name in SELECTIONS]

    def keep(self, amount: int) -> float:
        """Return the share of the dense model's MACs."""
        return make_plan(self.model, self.paper(num_prop=amount)).ratio


def clamped(settings: Settings, shape: ModelShape) -> Settings:
    """Return settings of one number for all layers; a layer gives fewer where the method can take no more there."""
    assert isinstance(settings.num_prop, int)
    tokens, amounts = shape.patches, []
    for _ in range(shape.depth):
        amounts.append(min(settings.num_prop, settings.most(tokens, shape.num_prefix)))
        tokens -= amounts[-1]
    return replace(settings, num_prop=tuple(amounts))
