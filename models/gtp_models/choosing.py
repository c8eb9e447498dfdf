"""GTP settings for a model that no recipe names, chosen by its tokens and its depth."""

from dataclasses import replace
from typing import Any

from gtp_models.errors import ConfigError
from gtp_models.gtp.config import GTPConfig
from gtp_models.macs import cost
from gtp_models.schedules import make_schedule

SAVED = 0.257  # of the MACs: what the paper's DeiT-S saves with num_prop 8 (its abstract says 26 %)
CLOSE = 0.02  # how near one number for all layers must come; else layers differ by one


def choose(model: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Choose settings for a timm model, which may stand on the meta device.

    ``num_prop`` is one number for all layers where that saves about as much as the paper's DeiT-S does, else spread as
    evenly as whole tokens go. All else is as ``GTPConfig`` has it, and needs no class token.

    Returns:
        Settings by name, and for each why.

    Raises:
        UnsupportedModelError: ``apply`` cannot patch the model.
        ConfigError: the model has one patch alone.
    """
    patches, depth = model.patch_embed.num_patches, len(model.blocks)
    if patches < 2:
        raise ConfigError("the model has a single patch, so no token can leave: choose a larger image size")
    neighbours = _neighbours(patches)
    config = _config(model, GTPConfig(num_prop=0, num_neighbours=neighbours), patches, depth)
    counts, costs = config.counts(depth, patches), cost(model, config)
    saved = 1 - costs.backbone / costs.dense
    settings = {"num_prop": config.num_prop, "num_neighbours": neighbours, "selection": config.selection}
    return settings, {
        "num_prop": f"{patches - counts[-1]} of {patches} patches leave over {depth} layers, which saves {saved:.1%} "
        f"of the MACs; DeiT-S of the paper saves {SAVED:.1%} with 8",
        "num_neighbours": "the default" if neighbours == GTPConfig.num_neighbours else "a quarter of the patches",
        "selection": "needs no class token",
    }


def _neighbours(patches: int) -> int:
    return max(1, min(GTPConfig.num_neighbours, patches // 4))


def _config(model: Any, config: GTPConfig, patches: int, depth: int) -> GTPConfig:
    def miss(candidate: GTPConfig) -> float:
        costs = cost(model, candidate)
        return abs(1 - costs.backbone / costs.dense - SAVED)

    uniform = min((replace(config, num_prop=amount) for amount in range((patches - 1) // depth + 1)), key=miss)
    if miss(uniform) <= CLOSE:
        return uniform
    try:
        return make_schedule(model, config, "even", 1 - SAVED)
    except ConfigError:  # so few tokens that no schedule comes near
        return uniform
