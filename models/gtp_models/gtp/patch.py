"""Patches a timm model with GTP, in place, and takes the patch off again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.gtp.blocks import GTPBlocks, ReducingBlocks
from gtp_models.gtp.config import GTPConfig
from gtp_models.gtp.families import family_of
from gtp_models.gtp.families.forms import Blocks
from gtp_models.gtp.refusals import check_trunk
from gtp_models.gtp.trace import Step, describe, recording

Model = TypeVar("Model", bound=nn.Module)


def apply(model: Model, config: GTPConfig | None = None) -> Model:
    """Patch a timm ``VisionTransformer`` or ``Eva`` with GTP, in place; a patch that is there is replaced.

    Args:
        model: with a fixed image size; (B, 3, H, W) images in, as before.
        config: the settings, GTP's defaults without.

    Returns:
        The same model.

    Raises:
        UnsupportedModelError: another kind of model, block or attention.
        ConfigError: settings that do not fit the model's layers and tokens.
    """
    config = config or GTPConfig()
    return patch(model, config, lambda blocks, grid, prefix: GTPBlocks(blocks, config, grid, prefix))


def patch(model: Model, config: GTPConfig, make: Callable[[Blocks, tuple[int, int], int], ReducingBlocks]) -> Model:
    """Put other blocks in place of a model's: ``make`` gets timm's blocks, the patch grid and the prefix tokens."""
    check_supported(model)
    check_selection(model, config)
    target: Any = model  # nn.Module's type hides a timm model's attributes
    blocks = target.blocks
    patched = make(blocks, target.patch_embed.grid_size, target.num_prefix_tokens)
    patched.training = blocks.training
    family_of(model).install(model, patched, True)
    return model


def remove(model: Model) -> Model:
    """Undo ``apply``; a model without a patch is returned as it is."""
    target: Any = model
    if is_patched(model):
        family = family_of(model)
        plain = family.plain(dict(target.blocks.named_children()))
        plain.training = target.blocks.training
        family.install(model, plain, False)
    return model


def is_patched(model: nn.Module) -> bool:
    """Whether this model is patched, with GTP or a rival."""
    return isinstance(getattr(model, "blocks", None), ReducingBlocks)


@contextmanager
def trace_tokens(model: Any) -> Iterator[list[Step]]:
    """Record which tokens stay and leave: after a forward within, one ``Step`` a layer, on the CPU.

    Raises:
        UnsupportedModelError: the model is not patched.
    """
    if not is_patched(model):
        raise UnsupportedModelError(
            f"{type(model).__name__} is not patched with GTP: call gtp_export.apply(model) first"
        )
    with recording(model.blocks, keep=describe) as steps:
        yield steps


def check_supported(model: Any) -> None:
    """Raise ``UnsupportedModelError``, naming what does not fit and why, unless ``apply`` can patch the model."""
    check_trunk(model)
    family_of(model).check_supported(model)


def check_selection(model: Any, config: GTPConfig) -> None:
    """Raise ``ConfigError`` where tokens are to be scored by a class token that the model does not have."""
    if config.selection.startswith("CLSAttn") and model.cls_token is None:
        raise ConfigError(
            f"selection={config.selection!r} needs a class token, and this model has none: use 'MixedAttnMax'"
        )
