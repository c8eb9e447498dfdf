"""Patches a timm model with a method."""

from typing import Any, TypeVar

from torch import nn

from gtp_models.frame.families.transformers_layers import as_timm
from gtp_models.frame.patch import install
from gtp_models.frame.restore import Absent, Restore
from gtp_models.methods import METHODS
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.settings import Settings
from gtp_models.plan import Plan, make_plan

Model = TypeVar("Model", bound=nn.Module)


def apply(model: Model, settings: Settings | Plan | None = None, *, restore: bool | Absent = False) -> Model:
    """Patch a ViT of timm (``VisionTransformer``, ``Eva``) or of transformers, in place. An earlier patch is replaced.

    Args:
        model: with a fixed image size; (B, 3, H, W) images in, as before.
        settings: of any method (their class determines it), or a plan that was made for this model (default:
            ``GTPConfig()``).
        restore: put the tokens back on the grid behind the last block, and behind each layer that timm's
            ``forward_intermediates`` or ``get_intermediate_layers`` is asked for: (B, tokens, dim) as without a patch.
            Transformers' models need it.
            A merged patch takes the vector of the token that it was merged into. One that left without a receiver
            takes that of the nearest kept patch on the grid; with "zero" it stays away: its vector is zero.

    Returns:
        The same model.

    Raises:
        UnsupportedModelError: another kind of model, block or attention.
        ConfigError: settings that do not fit the model's layers and tokens, or another ``restore``.

    >>> import timm, torch
    >>> model = timm.create_model("vit_tiny_patch16_224").eval()
    >>> model = apply(model, GTPConfig(num_prop=8))
    >>> model(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1000])
    >>> model = apply(model, GTPConfig(num_prop=8), restore=True)
    >>> model.get_intermediate_layers(torch.zeros(1, 3, 224, 224), n=[5, 11], reshape=True)[0].shape
    torch.Size([1, 192, 14, 14])
    """
    vit: Any = as_timm(model)
    plan = settings if isinstance(settings, Plan) else make_plan(vit, settings or GTPConfig())
    putting_back = Restore(plan.shape.grid, "nearest" if restore is True else restore) if restore else None
    install(vit, lambda blocks: METHODS[plan.settings.name].blocks(blocks, plan))
    patched: Any = vit.blocks
    patched.restore = putting_back
    patched.settings = plan.asked or plan.settings  # what an export of the module needs
    return model
