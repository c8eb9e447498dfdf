"""Schedules: the number of tokens to remove in each layer, for a given MACs budget."""

from collections.abc import Sequence
from typing import Protocol

from gtp_models.errors import ConfigError
from gtp_models.methods.settings import ModelShape, Settings
from gtp_models.schedule_kinds import Amounts, maker

TILES = (16, 8, 4)  # token counts that are multiples of them suit the tiles of runtimes
TILES_IN = 12  # as many tiles must fit into the tokens
CLOSE = 0.01  # of the dense model's MACs: how far "+aligned" may be from its budget
NEAR = 0.02  # of the dense model's MACs: how far a schedule may be from its budget
STEPS = 2000  # candidates between no and all tokens


class Costs(Protocol):
    """The MACs of schedules."""

    dense: int

    def backbone(self, num_prop: Sequence[int]) -> int:
        """Return the MACs of a schedule, or raise ``ConfigError`` where it does not fit."""
        ...


def resolve(settings: Settings, shape: ModelShape, costs: Costs) -> Amounts:
    """Return the number of tokens to remove in each layer.

    ``schedule`` is "even" (as evenly as whole tokens allow), "early" or "late" (linearly more in the first or last
    layers), "every:K" (only in every K-th layer), "steps:K" (in K layers, spread over the first two thirds), or
    "at:1,5" (only in these layers). "aligned:M", alone or after another ("steps:2+aligned:16"), rounds the tokens of
    each layer, prefix tokens included, to a multiple of M from the first reduction on. "+aligned" chooses M: 16, 8 or
    4, the largest that comes within 1 % of the budget and fits into the tokens 12 times, or else does not round. The
    budget is ``macs``, ``keep``, or what ``num_prop`` takes.

    Raises:
        ConfigError: another number of layers, an unknown schedule, or a budget that no such schedule can meet.
    """
    if settings.num_prop is not None:
        given = _per_layer(settings.num_prop, shape.depth)
        if settings.schedule is None:
            costs.backbone(given)  # raises where it does not fit
            return given
        wanted = float(costs.backbone(given))
    else:
        wanted = settings.macs if settings.macs is not None else (settings.keep or 1) * costs.dense
    return _nearest(settings.schedule or "even", wanted, shape, costs)


def _per_layer(num_prop: int | Amounts, depth: int) -> Amounts:
    if isinstance(num_prop, int):
        return (num_prop,) * depth
    if len(num_prop) != depth:
        raise ConfigError(
            f"num_prop has {len(num_prop)} entries, but the model has {depth} layers: "
            f"give {depth} entries, or one number for all"
        )
    return num_prop


def _nearest(kind: str, wanted: float, shape: ModelShape, costs: Costs) -> Amounts:
    if kind.endswith("+aligned"):
        return _tiled(kind, wanted, shape, costs)
    best, off = _best(kind, wanted, shape, costs)
    if abs(off) > NEAR * costs.dense:
        raise ConfigError(
            f"no {kind} schedule comes near {wanted / 1e6:.1f} M of the dense {costs.dense / 1e6:.1f} M MACs: "
            f"the nearest is {(wanted + off) / 1e6:.1f} M; ask for that, or for another schedule"
        )
    return best


def _tiled(kind: str, wanted: float, shape: ModelShape, costs: Costs) -> Amounts:
    for tile in TILES:
        if tile * TILES_IN <= shape.patches + shape.num_prefix:
            best, off = _best(f"{kind}:{tile}", wanted, shape, costs)
            if abs(off) <= CLOSE * costs.dense:
                return best
    return _nearest(kind.removesuffix("+aligned"), wanted, shape, costs)


def _best(kind: str, wanted: float, shape: ModelShape, costs: Costs) -> tuple[Amounts, float]:
    """Return the schedule whose MACs are nearest, and by how many they are more than wanted."""
    make = maker(kind, shape)
    candidates = list(dict.fromkeys(make(share / STEPS) for share in range(STEPS + 1)))
    fitting = {schedule: cost - wanted for schedule in candidates if (cost := _cost(schedule, costs)) is not None}
    best = min(fitting, key=lambda schedule: abs(fitting[schedule]))
    return best, fitting[best]


def _cost(schedule: Amounts, costs: Costs) -> int | None:
    try:
        return costs.backbone(schedule)
    except ConfigError:
        return None
