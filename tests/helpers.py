"""What several test files share."""

from typing import Any

import torch
from timm.models import VisionTransformer
from torch import Tensor

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}


def tiny_vit(kind: type[VisionTransformer] = VisionTransformer, **overrides: Any) -> Any:
    """Make a small model in eval mode whose seeded weights all matter: no bias is 0, no norm's weight is 1."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = kind(**TINY | overrides)
        for name, value in model.named_parameters():
            noise = torch.randn_like(value)
            if value.ndim == 1:
                value.add_(0.1 * noise)
            elif name.endswith(("pos_embed", "_token")):
                value.copy_(0.3 * noise)
            else:
                value.copy_(noise * (1.5 / value[0].numel() ** 0.5))
    return model.eval()


def images_for(model: Any, batch: int = 2, seed: int = 0) -> Tensor:
    """Make seeded noise of the model's image size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *model.patch_embed.img_size, generator=generator)
