"""GTP settings for a model without a recipe, chosen by its tokens and depth."""

from dataclasses import replace
from typing import Any

from gtp_models.errors import ConfigError
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.plan import Plan, make_plan

SAVED = 0.257  # of the MACs: what the paper's DeiT-S saves with num_prop 8 (its abstract says 26 %)
CLOSE = 0.02  # of the MACs: how close one number for all layers must come to SAVED; else layers differ by one


def choose(model: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Choose settings for a timm model, which may be on the meta device.

    ``num_prop`` is one number for all layers if that saves about as much as in the paper's DeiT-S. Otherwise it is
    spread as evenly as whole tokens allow. The other settings are ``GTPConfig``'s defaults, which need no class token.

    Returns:
        Settings by name, and for each the reason.

    Raises:
        UnsupportedModelError: ``apply`` cannot patch the model.
        ConfigError: the model has a single patch.
    """
    patches, depth = model.patch_embed.num_patches, len(model.blocks)
    if patches < 2:
        raise ConfigError("the model has a single patch, so no token can be removed: choose a larger image size")
    neighbours = max(1, min(GTPConfig.num_neighbours, patches // 4))
    plan = _plan(model, GTPConfig(num_prop=0, num_neighbours=neighbours), (patches - 1) // depth)
    settings = {
        "num_prop": plan.settings.num_prop,
        "num_neighbours": neighbours,
        "selection": GTPConfig.selection,
    }
    return settings, {
        "num_prop": f"{sum(plan.num_prop)} of {patches} patches are removed over {depth} layers, which saves "
        f"{1 - plan.ratio:.1%} of the MACs; the paper's DeiT-S saves {SAVED:.1%} with 8",
        "num_neighbours": "the default" if neighbours == GTPConfig.num_neighbours else "a quarter of the patches",
        "selection": "needs no class token",
    }


def _plan(model: Any, config: GTPConfig, most: int) -> Plan:
    uniform = min((make_plan(model, replace(config, num_prop=amount)) for amount in range(most + 1)), key=_miss)
    if _miss(uniform) <= CLOSE:
        return uniform
    try:
        return make_plan(model, replace(config, num_prop=None, keep=1 - SAVED))
    except ConfigError:  # too few tokens for any schedule
        return uniform


def _miss(plan: Plan) -> float:
    return abs(1 - plan.ratio - SAVED)
