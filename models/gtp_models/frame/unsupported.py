"""Models that look like Vision Transformers but cannot be patched, each with the reason."""

from typing import Any

from gtp_models.errors import UnsupportedModelError

_PLACE = ", which need every token at its grid position"
_PYRAMID = "stages whose feature maps shrink on the grid"
_CONVOLUTIONS = f"convolutions on the grid{_PLACE}"
_WINDOWS = "attention within windows of the grid"
_RELATIVE = "attention with a bias for each pair of positions in the full grid"
_OWN = "blocks and rotary embeddings of its own, for which there is no adapter"

REASONS = {  # by timm's module
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
    "vision_transformer_sam": f"{_WINDOWS}{_PLACE}, and {_RELATIVE}",
}


def check_trunk(model: Any) -> None:
    """Raise ``UnsupportedModelError``, with the reason, for a model whose trunk cannot be patched.

    A family's own check covers the rest: its forms, the model's settings, and unknown classes of blocks and attention.
    """
    name = type(model).__name__
    for kind in type(model).__mro__:
        reason = REASONS.get(kind.__module__.removeprefix("timm.models."))
        if kind.__module__.startswith("timm.models.") and reason is not None:
            raise UnsupportedModelError(f"{name} cannot be patched: it has {reason}")
