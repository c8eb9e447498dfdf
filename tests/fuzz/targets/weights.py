"""Weights files; the first byte says in which format the rest is read."""

import io
from functools import cache
from pathlib import Path
from typing import Any

from targets.base import Target, write

WORDS = (b"PK\x03\x04", b"\x80\x02", b"cos\nsystem\n", b"ctorch\n", b"R.", b'"dtype"', b"[0,")


def read_weights(content: bytes, folder: Path) -> None:
    from gtp_models.state_dict import fit, read_state_dict

    suffix = (".safetensors", ".pth", ".pt")[content[0] % 3] if content else ".pth"
    fit(read_state_dict(write(folder, f"weights{suffix}", content[1:])), _small_model())


@cache
def _small_model() -> Any:
    from timm.models import VisionTransformer

    return VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=1, num_heads=3, num_classes=5)


def weights_seeds() -> list[bytes]:
    import torch
    from safetensors.torch import save

    state = {"pos_embed": torch.zeros(1, 10, 24), "head.weight": torch.zeros(5, 24), "x.gamma_1": torch.zeros(2)}
    seeds = [b"\x00" + save(state)]
    for content, old in ((state, False), ({"model": state}, False), (state, True), ({1: torch.zeros(1)}, False)):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=not old)
        seeds.append(b"\x01" + stream.getvalue())
    return seeds


TARGET = Target(read_weights, weights_seeds, WORDS)
