"""Schedules: the number of tokens to remove in each layer, for a given MACs budget."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

from gtp_models.errors import ConfigError
from gtp_models.methods.settings import ModelShape, Settings

KINDS = "even, early, late, every:K, steps:K, safe[:K], inner[:K], at:L,L, aligned:M, fitted[:K]"
INNER = "inner+aligned"  # the usual schedule for outputs of every patch
FITTED = "fitted"  # the kind that is found by measuring, ``gtp_models.fitting``
SAFE = 5  # steps of "safe" before the last layer, and of "inner"
AT_LAST = 2  # times as many tokens as in a step before, in the last layer of "safe"
EVERYWHERE = ("even", "early", "late")
TILES = (16, 8, 4)  # token counts that are multiples of these suit the tiles of runtimes
TILES_IN = 12  # a tile is at most this fraction (1/12) of the tokens
CLOSE = 0.01  # of the dense model's MACs: how far "+aligned" may be from its budget
NEAR = 0.02  # of the dense model's MACs: how far a schedule may be from its budget
STEPS = 2000  # candidates between no and all tokens
Amounts = tuple[int, ...]


class Costs(Protocol):
    """What schedules cost: MACs, or time."""

    @property
    def dense(self) -> float:
        """Of the dense model."""
        ...

    def backbone(self, num_prop: Sequence[int]) -> float:
        """Return the cost of a schedule, or raise ``ConfigError`` where it does not fit."""
        ...


def resolve(settings: Settings, shape: ModelShape, costs: Costs) -> Amounts:
    """Return the number of tokens to remove in each layer.

    ``schedule`` is "even" (as evenly as whole tokens allow), "early" or "late" (linearly more in the first or last
    layers), "every:K" (only in every K-th layer), "steps:K" (in K layers, spread over the first two thirds),
    "safe:K" (in K layers, 5 by default, spread from a sixth to three quarters of the depth, and twice as many in the
    last one), "inner:K" (as "safe:K" without the last one, for outputs of every patch), or "at:1,5" (only in these
    layers). "aligned:M", alone or after another ("steps:2+aligned:16"),
    rounds the tokens of each layer, prefix tokens included, to a multiple of M from the first reduction on.
    "+aligned" chooses M: the largest of 16, 8 and 4 that meets the budget within 1 % of the dense model's MACs and
    is at most 1/12 of the tokens; if none does, it does not round. "fitted" and "fitted:K" (at most K steps) stand
    for layers and amounts that ``gtp_models.fitting`` measures on images, so they have no amounts before. The
    budget is ``macs``, ``keep``, or the MACs that ``num_prop`` in every layer would leave.

    Raises:
        ConfigError: another number of layers, an unknown schedule, one that is not fitted yet, or a budget that no such
            schedule can meet.
    """
    if is_fitted(settings.schedule):
        raise ConfigError(
            f"schedule={settings.schedule!r} is not fitted yet: its layers are measured on images; export with "
            "--calib-data DIR, or call gtp_export.fit_schedule(model, settings, images)"
        )
    if settings.num_prop is not None:
        amounts = _per_layer(settings.num_prop, shape.depth)
        if settings.schedule is None:
            costs.backbone(amounts)  # raises where it does not fit
            return amounts
        budget = float(costs.backbone(amounts))
    else:
        budget = settings.macs if settings.macs is not None else (settings.keep or 1) * costs.dense
    return _nearest(settings.schedule or "even", budget, shape, costs)


def _per_layer(num_prop: int | Amounts, depth: int) -> Amounts:
    if isinstance(num_prop, int):
        return (num_prop,) * depth
    if len(num_prop) != depth:
        raise ConfigError(
            f"num_prop has {len(num_prop)} entries, but the model has {depth} layers: "
            f"give {depth} entries, or one number for all"
        )
    return num_prop


def _nearest(kind: str, budget: float, shape: ModelShape, costs: Costs) -> Amounts:
    if kind.endswith("+aligned"):
        return _tiled(kind, budget, shape, costs)
    schedule, excess = _best(kind, budget, shape, costs)
    if abs(excess) > NEAR * costs.dense:
        raise ConfigError(
            f"no {kind} schedule comes near {budget / 1e6:.1f} M of the dense {costs.dense / 1e6:.1f} M MACs: "
            f"the nearest is {(budget + excess) / 1e6:.1f} M; ask for that, or for another schedule"
        )
    return schedule


def _tiled(kind: str, budget: float, shape: ModelShape, costs: Costs) -> Amounts:
    for tile in TILES:
        if tile * TILES_IN <= shape.patches + shape.num_prefix:
            schedule, excess = _best(f"{kind}:{tile}", budget, shape, costs)
            if abs(excess) <= CLOSE * costs.dense:
                return schedule
    return _nearest(kind.removesuffix("+aligned"), budget, shape, costs)


def _best(kind: str, budget: float, shape: ModelShape, costs: Costs) -> tuple[Amounts, float]:
    """Return the schedule whose MACs are nearest to the budget, and by how many they exceed it."""
    make = maker(kind, shape)
    candidates = list(dict.fromkeys(make(share / STEPS) for share in range(STEPS + 1)))
    excess = {schedule: cost - budget for schedule in candidates if (cost := _cost(schedule, costs)) is not None}
    best = min(excess, key=lambda schedule: abs(excess[schedule]))
    return best, excess[best]


def _cost(schedule: Amounts, costs: Costs) -> float | None:
    try:
        return costs.backbone(schedule)
    except ConfigError:
        return None


def maker(text: str, shape: ModelShape) -> Callable[[float], Amounts]:
    """Return a function from the total share of tokens to remove, 0..1, to a schedule.

    Raises:
        ConfigError: an unknown kind, a layer that the model has not, or more steps than it has different layers for.
    """
    kind, multiple = _parsed(text)
    weights = _weights(kind, shape.depth)
    is_safe = kind.startswith("safe")

    def exact(share: float) -> Amounts:
        amounts = spread(weights, share * shape.patches)
        return with_last(amounts, shape.patches) if is_safe else amounts

    if multiple is None:
        return exact
    start = shape.patches + shape.num_prefix
    return lambda share: rounded(exact(share), start, multiple)


def check_schedule(text: str) -> str:
    """Return a schedule whose form is right, for a model of any depth.

    Raises:
        ConfigError: an unknown kind.
    """
    _parsed(text)
    return text


def is_fitted(schedule: str | None) -> bool:
    """Whether a schedule is to be fitted by measuring."""
    return schedule is not None and schedule.partition(":")[0] == FITTED


def most_steps(schedule: str | None) -> int | None:
    """Return K of "fitted:K"; None where as many layers may reduce as pay."""
    number = (schedule or "").removeprefix(f"{FITTED}:")
    return int(number) if is_fitted(schedule) and number != schedule else None


def _parsed(text: str) -> tuple[str, int | None]:
    """Return the kind, "at:1,5", and the multiple of "+aligned:M"; None where the counts are not aligned."""
    kind, plus, aligned = text.partition("+")
    if kind.startswith("aligned:") and not plus:
        kind, plus, aligned = "even", "+", kind
    name, _, rest = kind.partition(":")
    numbers = rest.split(",") if name == "at" else [rest]
    right = kind in EVERYWHERE or (name in ("every", "steps") and _positive(rest))
    optional = _positive(rest or "1") and not kind.endswith(":")  # K may be left out
    right = right or (name in ("safe", "inner") and optional) or (name == FITTED and not plus and optional)
    right = right or (name == "at" and all(part.isdecimal() for part in numbers))
    word, _, multiple = aligned.partition(":")
    if not right or (plus and not (word == "aligned" and _positive(multiple or str(TILES[0])))):
        raise ConfigError(
            f"no schedule is called {text!r}: choose one of {KINDS} (every:3, steps:2, at:1,5, "
            "fitted:4); +aligned or +aligned:16 after any of them but fitted, which does so where it pays, rounds the "
            "tokens of each layer to multiples"
        )
    return kind, int(multiple) if multiple else None


def _weights(kind: str, depth: int) -> list[int]:
    """Return each layer's share of the removed tokens, as weights."""
    name, _, rest = kind.partition(":")
    layers = range(depth)
    if name in EVERYWHERE:
        return {"even": [1] * depth, "early": list(range(depth, 0, -1)), "late": list(range(1, depth + 1))}[name]
    if name in ("safe", "inner"):
        reducing = safe_steps(int(rest) if rest else None, depth, name)
        return [int(layer in reducing) for layer in layers]
    reducing = [int(part) for part in rest.split(",")]
    if name == "every":
        _check_depth(kind, reducing[0] - 1, depth)
        return [int(layer % reducing[0] == reducing[0] - 1) for layer in layers]
    if name == "steps":
        most = 2 * depth // 3  # more would fall on the same layers
        if reducing[0] > most:
            raise ConfigError(f"{kind}: a model of {depth} layers takes at most steps:{most}; every:1 reduces in all")
        reducing = steps(reducing[0], depth)
    _check_depth(kind, max(reducing), depth)
    return [int(layer in reducing) for layer in layers]


def _check_depth(kind: str, layer: int, depth: int) -> None:
    if layer >= depth:
        raise ConfigError(f"schedule {kind}: there is no layer {layer}, the model has {depth} layers, 0 to {depth - 1}")


def steps(count: int, depth: int) -> list[int]:
    """Return the layers of ``steps:K``: from layer 1 on, spread over the first two thirds."""
    return [1 + int(step * 2 * depth / (3 * count)) for step in range(count)]


def safe_steps(count: int | None, depth: int, name: str = "safe") -> list[int]:
    """Return the layers of ``inner:K``, and of ``safe:K`` before the last one: a sixth to three quarters of the depth.

    On four trained models the measured form loses less there than token merging in every layer, at .745 and at .6 of
    the MACs: a ViT-S, whose first layers can spare few tokens, .040 and .129 nats, where merging loses .090 and .227.
    Where every patch is read, a step in the last layer costs most: see ``benchmarks/results/fitting.md``.

    Raises:
        ConfigError: more steps than there are such layers.
    """
    last = max(0, min(3 * depth // 4, depth - 2))
    first = min(max(1, depth // 6), last)
    most = last - first + 1
    if count is not None and count > most:
        raise ConfigError(
            f"{name}:{count}: a model of {depth} layers takes at most {name}:{most}; every:1 reduces in all"
        )
    count = min(SAFE, most) if count is None else count
    return [first + int(step * (last - first) / max(1, count - 1)) for step in range(count)]


def with_last(amounts: Amounts, patches: int) -> Amounts:
    """Let ``AT_LAST`` times a step's mean leave in the last layer as well, at most half of what is left there."""
    left, steps = patches - sum(amounts), sum(map(bool, amounts))
    more = min(round(AT_LAST * sum(amounts) / steps), left // 2) if steps else 0
    return (*amounts[:-1], amounts[-1] + more)


def _positive(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def spread(weights: Sequence[float], total: float) -> Amounts:
    """Divide ``total`` by weight, rounded so that the running sums are as close as whole numbers allow."""
    so_far = [sum(weights[:layer]) * total / sum(weights) for layer in range(len(weights) + 1)]
    return tuple(round(after) - round(before) for before, after in pairwise(so_far))


def rounded(amounts: Amounts, start: int, multiple: int) -> Amounts:
    """Round the tokens after each reduction to a multiple; ``start`` is their number before the first layer."""
    counts, exact = [start], start
    for amount in amounts:
        exact -= amount
        nearest = max(multiple, multiple * round(exact / multiple))
        counts.append(min(counts[-1], nearest) if amount else counts[-1])
    return tuple(before - after for before, after in pairwise(counts))
