"""Adapters to timm, one for each family of models."""

from typing import Any

from gtp_models.errors import UnsupportedModelError
from gtp_models.frame.families import eva, vision_transformer
from gtp_models.frame.families.forms import AttentionForm, BlockForm, Family

FAMILIES = (vision_transformer.FAMILY, eva.FAMILY)


def family_of(model: Any) -> Family:
    """Return the family of a model.

    Raises:
        UnsupportedModelError: the family is not supported.
    """
    for family in FAMILIES:
        if family.holds(model):
            return family
    raise UnsupportedModelError(
        f"{type(model).__name__} cannot be patched: GTP supports timm's VisionTransformer and Eva; "
        "gtp-export models lists the recipes"
    )


def block_form(block: Any) -> BlockForm:
    """Return the parts of a block of any family."""
    return next(family.blocks[type(block)] for family in FAMILIES if type(block) in family.blocks)


def attention_form(attn: Any) -> AttentionForm:
    """Return the projections of an attention of any family."""
    return next(family.attentions[type(attn)] for family in FAMILIES if type(attn) in family.attentions)
