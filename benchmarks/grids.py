"""The grids as data: which candidates are measured on which models, how they run, and what is measured of them.

A method, preset, schedule, selection, precision or runtime to measure is one more line here. ``amount`` is GTP's number
of tokens a layer, whose MACs all others spend; ``keep`` is a share of the dense model's MACs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from baselines import ATCSettings, PiToMeSettings

from gtp_exporters.measuring.candidate import Running
from gtp_models import ConfigError, GTPConfig, Recipe, Settings, make_plan, make_settings
from gtp_models.methods.settings import ModelShape
from gtp_models.plan import model_shape
from gtp_models.schedules import FITTED

Budget = Mapping[str, float]
Cases = list[tuple[str, Settings]]
SCHEDULES = ("even", "early", "late", "every:3", "aligned:8")
SELECTIONS = ("MixedAttnMax", "CLSAttnMax", "CLSAttnMean", "IMGAttnMax", "DiagAttnMax")
ONE, BF16 = {"threads": 1}, {"threads": 1, "compute": "bf16"}
FLOATS = (Running("onnxruntime", ONE), Running("openvino", ONE), Running("openvino", BF16, "bf16"))
PRECISIONS = (
    Running("onnxruntime", ONE),
    Running("onnxruntime", ONE, "fp16", "fp16"),
    Running("onnxruntime", ONE, "int8", "int8", "onnxruntime"),
    Running("onnxruntime", ONE, "int8 weights", "int8_weights"),
    Running("onnxruntime", ONE, "int4 weights", "int4_weights"),
    Running("openvino", ONE),
    Running("openvino", BF16, "bf16"),
    Running("openvino", ONE, "fp16", "fp16"),
    Running("openvino", ONE, "int8", "int8", "openvino"),
    Running("openvino", BF16, "int8 and bf16", "int8", "openvino"),
)


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

    def results(self, keep: float) -> Cases:
        """Methods at a share of the MACs, whose accuracy is held against their latency."""
        return [
            ("measured", GTPConfig.measured(keep=keep)),
            ("fitted", GTPConfig.measured(keep=keep, schedule=FITTED)),
            ("two-steps", GTPConfig.measured(keep=keep, schedule="steps:2+aligned")),
            ("tome", make_settings("tome", keep=keep)),
            ("tome-2", make_settings("tome", keep=keep, schedule="safe+aligned")),
            ("paper", self.paper(keep=keep)),
            ("prune", self.paper(keep=keep, graph="None", propagation="None")),
            ("drop", make_settings("drop", keep=keep)),
        ]

    def presets(self, keep: float) -> Cases:
        """GTP's presets."""
        return [("measured", GTPConfig.measured(keep=keep)), ("paper", self.paper(keep=keep))]

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


@dataclass(frozen=True)
class Grid:
    """What a page is made of.

    Attributes:
        models: recipes, timm:NAME or recipe files, where none are named.
        budget: "num_prop" or "keep": what the amounts are.
        amounts: what the cases may spend.
        groups: the cases by the name of their group, for an amount.
        parts: what is measured: names of ``bench.PARTS``.
        runnings: how graphs run.
        weights: of the models.
        is_together: whether the amounts are measured in turn with each other, or each by itself.
        is_beside_fp32: whether latency is over that of the dense float32 graph, or of the dense one in each precision.
        seconds, loads: of timing, as ``time_in_turn`` takes them.
        output: of the page; {name} is the model's.
    """

    models: Sequence[str]
    budget: str
    amounts: Sequence[float]
    groups: Mapping[str, Callable[[Choice, Any], Cases]]
    parts: Sequence[str]
    runnings: Sequence[Running] = ()
    weights: str = "pretrained"
    is_together: bool = False
    is_beside_fp32: bool = False
    seconds: float = 15
    loads: int = 2
    output: str = "{page}"


GRIDS = {
    "accuracy": Grid(
        models=["digits"],
        budget="num_prop",
        amounts=[2, 3, 4, 5],
        groups={"methods": Choice.methods, "schedules": Choice.schedules, "selections": Choice.selections},
        parts=["losses", "thresholds"],
        output="{page}-{name}",
    ),
    "latency": Grid(
        models=["deit_ti", "deit_s", "deit_b"],
        budget="num_prop",
        amounts=[2, 4, 8, 12, 16],
        groups={"methods": Choice.exported},
        parts=["timings"],
        runnings=FLOATS,
        weights="random",
        loads=3,
    ),
    "results": Grid(
        models=["digits"],
        budget="keep",
        amounts=[0.85, 0.75, 0.65, 0.55, 0.45],
        groups={"methods": Choice.results},
        parts=["losses", "timings"],
        runnings=FLOATS,
        seconds=8,
    ),
    "precision": Grid(
        models=["digits"],
        budget="keep",
        amounts=[0.743, 0.6, 0.5],
        groups={"presets": Choice.presets},
        parts=["timings", "costs", "accuracies", "twins"],
        runnings=PRECISIONS,
        is_together=True,
        is_beside_fp32=True,
    ),
}
