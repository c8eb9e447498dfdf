"""GTP settings for a model without a recipe, chosen by its tokens and depth."""

from typing import Any

from gtp_models.errors import ConfigError
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.plan import Plan, make_plan

PRESET = "measured"
SAVED = 0.257  # of the MACs: what the paper's DeiT-S saves with num_prop 8 (its abstract says 26 %)


def choose(model: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Choose settings for a timm model, which may be on the meta device.

    The preset is "measured", with the MACs that the paper's DeiT-S has. A model of too few tokens for its schedule
    loses one number of tokens in every layer, the one that comes nearest. ``num_neighbours`` is for the preset "paper".

    Returns:
        Arguments of a recipe's ``gtp``, and the reasons for those that depend on the model.

    Raises:
        UnsupportedModelError: ``apply`` cannot patch the model.
        ConfigError: the model has a single patch.
    """
    patches = model.patch_embed.num_patches
    if patches < 2:
        raise ConfigError("the model has a single patch, so no token can be removed: choose a larger image size")
    neighbours = max(1, min(GTPConfig.num_neighbours, patches // 4))
    amount, plan = _amount(model)
    why = {
        next(iter(amount)): f"{_removed(plan)}, which saves {1 - plan.ratio:.1%} of the MACs; the paper's DeiT-S saves "
        f"{SAVED:.1%}",
        "num_neighbours": "the default" if neighbours == GTPConfig.num_neighbours else "a quarter of the patches",
    }
    return {"preset": PRESET, **amount, "num_neighbours": neighbours}, why


def _amount(model: Any) -> tuple[dict[str, Any], Plan]:
    amount: dict[str, Any] = {"keep": round(1 - SAVED, 3)}
    try:
        return amount, make_plan(model, GTPConfig.preset(PRESET, **amount))
    except ConfigError:  # too few tokens for the schedule
        depth, patches = len(model.blocks), model.patch_embed.num_patches
        candidates = [_uniform(model, number, depth) for number in range((patches - 1) // depth + 1)]
        return min(candidates, key=lambda candidate: abs(1 - candidate[1].ratio - SAVED))


def _uniform(model: Any, number: int, depth: int) -> tuple[dict[str, Any], Plan]:
    amount = {"num_prop": (number,) * depth}
    return amount, make_plan(model, GTPConfig.preset(PRESET, **amount))


def _removed(plan: Plan) -> str:
    layers = [index for index, amount in enumerate(plan.num_prop) if amount]
    where = f"layers {', '.join(map(str, layers))}" if len(layers) < len(plan.num_prop) else "all layers"
    return f"{sum(plan.num_prop)} of {plan.shape.patches} patches are removed in {where}"
