"""Installs a method's blocks in a model of timm or transformers, in place, and removes them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

from gtp_models.errors import UnsupportedModelError
from gtp_models.frame.blocks import ReducingBlocks
from gtp_models.frame.families import family_of
from gtp_models.frame.families.forms import Blocks
from gtp_models.frame.families.transformers_layers import as_timm
from gtp_models.frame.intermediates import GridIntermediates
from gtp_models.frame.pooling import PoolBySize
from gtp_models.frame.trace import Step, describe, recording

Model = TypeVar("Model", bound=nn.Module)


def install(model: Model, make: Callable[[Blocks], ReducingBlocks]) -> Model:
    """Replace a model's blocks, in place; ``make`` gets them as they were. An earlier patch is replaced.

    Raises:
        UnsupportedModelError: another kind of model, block or attention.
    """
    check_supported(model)
    target: Any = as_timm(model)  # nn.Module's type hides a timm model's attributes
    blocks = target.blocks
    patched = make(blocks)
    patched.training = blocks.training
    family_of(target).install(target, patched, True)
    _take_off(target)
    if patched.merges:
        target.pool = PoolBySize(target)
    target.forward_intermediates = GridIntermediates(target)
    return model


def remove(model: Model) -> Model:
    """Undo ``apply``; an unpatched model is returned unchanged.

    >>> import gtp_models, timm
    >>> model = gtp_models.apply(timm.create_model("vit_tiny_patch16_224").eval())
    >>> type(remove(model).blocks)
    <class 'torch.nn.modules.container.Sequential'>
    """
    target: Any = as_timm(model)
    if is_patched(model):
        family = family_of(target)
        plain = family.plain(dict(target.blocks.named_children()))
        plain.training = target.blocks.training
        family.install(target, plain, False)
        _take_off(target)
    return model


def _take_off(model: Any) -> None:
    """Let a model have its own methods again."""
    for name in ("pool", "forward_intermediates"):
        vars(model).pop(name, None)


def is_patched(model: nn.Module) -> bool:
    """Whether this model is patched."""
    return isinstance(getattr(as_timm(model), "blocks", None), ReducingBlocks)


@contextmanager
def trace_tokens(model: Any) -> Iterator[list[Step]]:
    """Record the kept and removed tokens: after a forward pass in the context, one ``Step`` per layer, on the CPU.

    Raises:
        UnsupportedModelError: the model is not patched.

    >>> import gtp_models, timm, torch
    >>> model = gtp_models.apply(timm.create_model("vit_tiny_patch16_224").eval())  # 196 patches
    >>> with trace_tokens(model) as trace:
    ...     logits = model(torch.zeros(1, 3, 224, 224))
    >>> [step.kept.shape[1] for step in trace[:3]], trace[0].propagated.shape
    ([188, 180, 172], torch.Size([1, 8]))
    """
    if not is_patched(model):
        raise UnsupportedModelError(
            f"{type(model).__name__} is not patched: call gtp_export.apply(model, settings) first"
        )
    with recording(as_timm(model).blocks, keep=describe) as steps:
        yield steps


def check_supported(model: Any) -> None:
    """Raise ``UnsupportedModelError`` with the reason if ``apply`` cannot patch the model."""
    vit = as_timm(model)
    family_of(vit).check_supported(vit)
