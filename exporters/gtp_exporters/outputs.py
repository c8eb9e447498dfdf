"""What a graph gives: logits, pooled features, or a vector for every patch, of the last layer or of several."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gtp_models.errors import ConfigError
from gtp_models.heads import DENSE
from gtp_runtime.manifest import OutputInfo


@dataclass(frozen=True)
class Outputs:
    """The answers of an export.

    Attributes:
        kind: "logits" (B, classes), "features" (B, dim), "patches" (B, patches, dim) or "map" (B, dim, rows, columns).
            Patches are in the grid's order, as timm's ``forward_features`` gives them without the prefix tokens.
        layers: for patches and maps the layers that are given, each behind the final norm; empty for the last one.
    """

    kind: str = "logits"
    layers: tuple[int, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the outputs, in order: "map", or "map_2", "map_5" of layers."""
        return [f"{self.kind}_{layer}" for layer in self.layers] or [self.kind]

    @property
    def is_dense(self) -> bool:
        """Whether every patch has its own answer, so that tokens that left are put back."""
        return self.kind in DENSE

    def of(self, model: Any, images: Tensor) -> tuple[Tensor, ...]:
        """Run a timm model, patched with ``restore`` where it is dense or not patched, on (B, 3, H, W) images."""
        if not self.is_dense:
            return (model(images),)
        if self.layers:
            form = "NCHW" if self.kind == "map" else "NLC"
            options = {"norm": True, "output_fmt": form, "intermediates_only": True}
            return tuple(model.forward_intermediates(images, indices=list(self.layers), **options))
        patches = model.forward_features(images)[:, model.num_prefix_tokens :]
        return (patches.transpose(1, 2).unflatten(-1, model.patch_embed.grid_size) if self.kind == "map" else patches,)

    def whole(self, model: Any) -> Any:
        """Return what is traced: the model."""
        return model

    def described(self, model: Any) -> dict[str, OutputInfo]:
        """Return what the manifest says of each output."""
        if not self.is_dense:
            return {self.kind: OutputInfo(self.kind)}
        sizes = zip(model.patch_embed.img_size, model.patch_embed.grid_size, strict=True)
        stride = [size // cells for size, cells in sizes]
        layers = self.layers or (len(model.blocks) - 1,)
        return {name: OutputInfo(self.kind, layer, stride) for name, layer in zip(self.names, layers, strict=True)}


LOGITS = Outputs()


def end_at(model: Any, outputs: Outputs) -> None:
    """Leave out, in place, what is behind the last output: later blocks, pooling and head.

    Raises:
        ConfigError: a layer that the model has not.
    """
    depth = len(model.blocks)
    missing = [layer for layer in outputs.layers if layer >= depth]
    if missing:
        raise ConfigError(f"there is no layer {missing[0]}: the model has the layers 0 to {depth - 1}")
    if not outputs.is_dense:
        return
    if outputs.layers:
        model.blocks = model.blocks[: outputs.layers[-1] + 1]
    model.attn_pool, model.global_pool = None, "token"
    model.fc_norm, model.head = nn.Identity(), nn.Identity()
