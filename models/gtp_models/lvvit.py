"""LV-ViT ("All Tokens Matter", arXiv 2104.10858), which timm does not have: importing this registers it with timm.

State-dict keys are those of the authors' checkpoints (zihangJiang/TokenLabeling, releases), whose evaluation settings
the configurations below repeat.
"""

import copy
from functools import partial
from typing import Any

from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import LayerNorm, PatchEmbed
from timm.models import VisionTransformer, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, checkpoint_filter_fn
from torch import Tensor, nn

__all__: list[str] = []  # register_model adds the models' names
RELEASE = "https://github.com/zihangJiang/TokenLabeling/releases/download/1.0/"
WIDTH = 64  # channels of the first three convolutions


class ConvPatchEmbed(PatchEmbed):  # type: ignore[misc]
    """Patch embedding of four convolutions (section 3.2).

    Modifications:
    - three convolutions with batch norm and ReLU halve the image and see beyond the patch
    - the projection takes patches of half the size from what they give
    """

    proj: nn.Conv2d

    def __init__(self, patch_size: int = 16, in_chans: int = 3, embed_dim: int = 768, **arguments: Any) -> None:
        super().__init__(patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim, **arguments)
        del self.proj  # so that the convolutions stand in the order in which they run
        half, bias = patch_size // 2, arguments.get("bias", True)
        where: dict[str, Any] = {"device": arguments.get("device"), "dtype": arguments.get("dtype")}
        self.conv1 = nn.Conv2d(in_chans, WIDTH, 7, stride=2, padding=3, bias=False, **where)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False, **where)
        self.conv3 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False, **where)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(WIDTH, **where) for _ in range(3))
        self.proj = nn.Conv2d(WIDTH, embed_dim, half, stride=half, bias=bias, **where)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch patches dim"]:
        """Embed images; their size must be the model's."""
        if tuple(x.shape[-2:]) != self.img_size:
            raise ValueError(f"images of {tuple(x.shape[-2:])} pixels, but the model takes {self.img_size}")
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = norm(conv(x)).relu()
        return self.norm(self.proj(x).flatten(2).mT)


class Divide(nn.Module):
    """Divides by a fixed number: residual scaling, in place of timm's layer scale, without parameters."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        return x / self.divisor


def _block(divisor: float, **arguments: Any) -> Block:
    block = Block(**arguments)
    block.ls1, block.ls2 = Divide(divisor), Divide(divisor)
    return block


class LVViT(VisionTransformer):  # type: ignore[misc]
    """LV-ViT (arXiv 2104.10858).

    Modifications:
    - patches are embedded by four convolutions
    - what attention and MLP add is divided by ``skip_lam``; queries, keys and values have no bias
    - an auxiliary head classifies every image token; for each class, half of the largest of their logits is added to
      the class token's. With GTP the largest is taken over the image tokens that stay.
    """

    def __init__(self, skip_lam: float = 2.0, **arguments: Any) -> None:
        fixed = {"embed_layer": ConvPatchEmbed, "block_fn": partial(_block, skip_lam), "qkv_bias": False}
        super().__init__(**{"norm_layer": partial(LayerNorm, eps=1e-5), "mlp_ratio": 3.0} | arguments | fixed)
        self.aux_head = copy.deepcopy(self.head)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Make new heads; none for 0 classes."""
        super().reset_classifier(num_classes, global_pool)
        self.aux_head = copy.deepcopy(self.head)

    def forward_head(
        self, x: Float[Tensor, "batch tokens dim"], pre_logits: bool = False
    ) -> Float[Tensor, "batch classes"]:
        """Return logits; the class token alone with ``pre_logits`` and where the model has no classes."""
        of_class_token: Tensor = super().forward_head(x, pre_logits)
        if pre_logits or not self.num_classes:
            return of_class_token
        return of_class_token + 0.5 * self.aux_head(x[:, self.num_prefix_tokens :]).amax(1)


def _evaluated(file: str, crop_pct: float) -> dict[str, Any]:
    return {
        "url": RELEASE + file,
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": crop_pct,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.conv1",
        "classifier": ("head", "aux_head"),
    }


default_cfgs = generate_default_cfgs(
    {
        "lvvit_s.tl_in1k": _evaluated("lvvit_s-26M-224-83.3.pth.tar", crop_pct=0.9),
        "lvvit_m.tl_in1k": _evaluated("lvvit_m-56M-224-84.0.pth.tar", crop_pct=1.0),
    }
)


def _create(name: str, pretrained: bool, arguments: dict[str, Any]) -> Any:
    return build_model_with_cfg(LVViT, name, pretrained, pretrained_filter_fn=checkpoint_filter_fn, **arguments)


@register_model  # type: ignore[untyped-decorator]
def lvvit_s(pretrained: bool = False, **arguments: Any) -> Any:
    """LV-ViT-S at 224."""
    return _create("lvvit_s", pretrained, {"embed_dim": 384, "depth": 16, "num_heads": 6} | arguments)


@register_model  # type: ignore[untyped-decorator]
def lvvit_m(pretrained: bool = False, **arguments: Any) -> Any:
    """LV-ViT-M at 224."""
    return _create("lvvit_m", pretrained, {"embed_dim": 512, "depth": 20, "num_heads": 8} | arguments)
