"""Adapters to timm and transformers: a family of models is one module here, which adds a ``Family`` to ``FAMILIES``."""

from typing import Any

from gtp_models.errors import UnsupportedModelError
from gtp_models.frame.families import eva as _eva  # noqa: F401 - adds its family
from gtp_models.frame.families import transformers_layers as _transformers_layers  # noqa: F401
from gtp_models.frame.families import vision_transformer as _vision_transformer  # noqa: F401
from gtp_models.frame.families.forms import FAMILIES, AttentionForm, BlockForm, Family
from gtp_models.frame.families.transformers_layers import why_not as against_transformers

TIMM = "timm.models."
_PLACE = ", which need every token at its grid position"
_PYRAMID = "stages whose feature maps shrink on the grid"
_CONVOLUTIONS = f"convolutions on the grid{_PLACE}"
_WINDOWS = "attention within windows of the grid"
_RELATIVE = "attention with a bias for each pair of positions in the full grid"
_OWN = "blocks and rotary embeddings of its own, for which there is no adapter"

REASONS = {  # why models that look like Vision Transformers cannot be patched, by timm's module
    "beit": _RELATIVE,
    "byobnet": _CONVOLUTIONS,
    "convit": "attention gated by relative position in the full grid, and a class token that joins in a later layer",
    "crossvit": "two branches of different patch sizes that exchange their class tokens",
    "davit": f"{_WINDOWS}{_PLACE}, and attention between channels",
    "deepseek_vit": _OWN,
    "efficientvit_mit": f"{_PYRAMID}{_PLACE}, and linear attention without an attention map",
    "efficientvit_msra": f"{_PYRAMID}{_PLACE}",
    "fastvit": f"{_PYRAMID}{_PLACE}",
    "gcvit": f"{_WINDOWS}{_PLACE}",
    "gemma4_vit": _OWN,
    "hieradet_sam2": f"{_PYRAMID}, and {_WINDOWS}{_PLACE}",
    "levit": f"{_PYRAMID}, and {_RELATIVE}",
    "maxxvit": f"{_WINDOWS} between convolutions{_PLACE}",
    "mvitv2": f"{_PYRAMID}{_PLACE}",
    "naflexvit": "sequences of variable length with masks, but an export needs a fixed number of tokens",
    "nextvit": _CONVOLUTIONS,
    "qwen3_vit": _OWN,
    "repvit": "only convolutions, no attention",
    "shvit": _CONVOLUTIONS,
    "tiny_vit": f"{_PYRAMID}, and {_WINDOWS}{_PLACE}",
    "vision_transformer_relpos": _RELATIVE,
    "vision_transformer_sam": f"{_WINDOWS}{_PLACE}, and {_RELATIVE}; only the MLPs of its global blocks could run on "
    "fewer tokens, 7 to 21 % of the MACs",
}


def family_of(model: Any) -> Family:
    """Return the family of a model.

    Raises:
        UnsupportedModelError: the family is not supported; the message says why.
    """
    reason = why_not(model)
    if reason:
        raise UnsupportedModelError(f"{type(model).__name__} cannot be patched: it has {reason}")
    for family in FAMILIES.values():
        if family.holds(model):
            return family
    raise UnsupportedModelError(
        f"{type(model).__name__} cannot be patched: gtp-export supports timm's {' and '.join(FAMILIES)}; "
        "gtp-export models lists the recipes"
    )


def why_not(model: Any) -> str:
    """Return what a model, derived or not, has that no patch can follow; nothing where no reason is known.

    A family's own check covers the rest: its forms, the model's settings, and unknown classes of blocks and attention.
    """
    for kind in type(model).__mro__:
        if kind.__module__.startswith(TIMM) and (reason := REASONS.get(kind.__module__.removeprefix(TIMM))):
            return reason
    return against_transformers(model)


def block_form(block: Any) -> BlockForm:
    """Return the parts of a block of any family."""
    return next(family.blocks[kind] for kind in _kinds(block) for family in FAMILIES.values() if kind in family.blocks)


def attention_form(attn: Any) -> AttentionForm:
    """Return the projections of an attention of any family."""
    kinds = _kinds(attn)
    return next(family.attentions[kind] for kind in kinds for family in FAMILIES.values() if kind in family.attentions)


def _kinds(part: Any) -> tuple[type, ...]:
    """Return a part's class and what it derives from: torch.export's stand-ins for shared modules are subclasses."""
    return type(part).__mro__
