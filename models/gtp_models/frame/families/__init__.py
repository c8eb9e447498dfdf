"""Adapters to timm: a family of models is one module here with a ``FAMILY``, which is all that adding one takes."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from gtp_models.errors import UnsupportedModelError
from gtp_models.frame.families.forms import AttentionForm, BlockForm, Family

_MODULES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
FAMILIES: tuple[Family, ...] = tuple(module.FAMILY for module in _MODULES if hasattr(module, "FAMILY"))


def family_of(model: Any) -> Family:
    """Return the family of a model.

    Raises:
        UnsupportedModelError: the family is not supported.
    """
    for family in FAMILIES:
        if family.holds(model):
            return family
    known = " and ".join(family.name for family in FAMILIES)
    raise UnsupportedModelError(
        f"{type(model).__name__} cannot be patched: GTP supports timm's {known}; gtp-export models lists the recipes"
    )


def block_form(block: Any) -> BlockForm:
    """Return the parts of a block of any family."""
    return next(family.blocks[type(block)] for family in FAMILIES if type(block) in family.blocks)


def attention_form(attn: Any) -> AttentionForm:
    """Return the projections of an attention of any family."""
    return next(family.attentions[type(attn)] for family in FAMILIES if type(attn) in family.attentions)
