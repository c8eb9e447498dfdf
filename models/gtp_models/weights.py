"""Builds a recipe's model with weights from timm's hub, a local file or a seed; never silently others."""

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from gtp_models.errors import ConfigError, WeightsError, WeightsUnavailableError
from gtp_models.recipes import Recipe

Source = Literal["pretrained", "file", "random"]
LOCAL = Path("weights")  # where ``auto`` looks for NAME.safetensors, NAME.pth and NAME.pt
SUFFIXES = (".safetensors", ".pth", ".pt")
HUB_TIMEOUT = 5.0  # seconds to find out whether the hub can be reached


@dataclass(frozen=True)
class BuiltModel:
    """A model in eval mode, and where its weights come from.

    Attributes:
        model: the timm model, not patched.
        recipe: what it was made from.
        source: "pretrained", "file" or "random".
        detail: the hub's name, the file's name or the seed.
        sha256: of all weights, by name.
        notes: what was changed while loading, for people.
    """

    model: nn.Module
    recipe: Recipe
    source: Source
    detail: str
    sha256: str
    notes: tuple[str, ...] = ()


def build_model(recipe: Recipe, weights: str = "pretrained", img_size: tuple[int, int] | None = None, seed: int = 0) -> BuiltModel:
    """Make a recipe's model and give it weights.

    Args:
        recipe: what to build.
        weights: "pretrained" (a recipe's own file, else timm's hub), a path, "random", or "auto": a file
            ``weights/NAME.safetensors`` (.pth, .pt), else pretrained, else, without a hub, random.
        img_size: (height, width) in pixels, the model's own without.
        seed: of random weights.

    Raises:
        WeightsError: a file that cannot be read or does not fit.
        WeightsUnavailableError: pretrained weights that cannot be had.
        ConfigError: arguments that timm refuses.
    """
    if weights == "auto":
        return _build_auto(recipe, img_size, seed)
    if weights == "random":
        torch.manual_seed(seed)
        return _built(_create(recipe, img_size), recipe, "random", f"seed {seed}")
    if weights != "pretrained":
        return _build_from_file(recipe, Path(weights), img_size, "file")
    if recipe.weights:
        return _build_from_file(recipe, recipe.weights, img_size, "pretrained")
    return _build_from_hub(recipe, img_size)


def _build_auto(recipe: Recipe, img_size: tuple[int, int] | None, seed: int) -> BuiltModel:
    for suffix in SUFFIXES:
        if (LOCAL / f"{recipe.name}{suffix}").exists():
            return build_model(recipe, str(LOCAL / f"{recipe.name}{suffix}"), img_size)
    try:
        return build_model(recipe, "pretrained", img_size)
    except WeightsUnavailableError:
        return build_model(recipe, "random", img_size, seed)


def _create(recipe: Recipe, img_size: tuple[int, int] | None, pretrained: bool = False) -> nn.Module:
    arguments = dict(recipe.model_args)
    if img_size is not None:
        arguments["img_size"] = img_size
    try:
        return timm.create_model(
            recipe.timm, pretrained=pretrained, pretrained_cfg_overlay=recipe.preprocessing or None, **arguments
        ).eval()
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"timm cannot make {recipe.timm} with {arguments}: {error}") from error


def _build_from_file(recipe: Recipe, path: Path, img_size: tuple[int, int] | None, source: Source) -> BuiltModel:
    model = _create(recipe, img_size)
    state, notes = _fit(read_state_dict(path), model)
    _check_fit(state, model, path)
    model.load_state_dict(state)
    return _built(model, recipe, source, path.name, notes)


def _build_from_hub(recipe: Recipe, img_size: tuple[int, int] | None) -> BuiltModel:
    config = timm.get_pretrained_cfg(recipe.timm)
    if config is None or not config.has_weights:
        raise WeightsUnavailableError(f"timm has no pretrained weights for {recipe.timm}: give --weights FILE or random")
    where = config.hf_hub_id or config.url
    if not _is_cached(config) and not _reachable(config.url if not config.hf_hub_id else _hub_endpoint()):
        raise WeightsUnavailableError(
            f"the weights of {recipe.timm} cannot be fetched ({where}: no connection within {HUB_TIMEOUT:.0f} s): "
            "connect, or give --weights FILE (.safetensors, .pth), or --weights random to try without"
        )
    try:
        model = _create(recipe, img_size, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailableError(f"the weights of {recipe.timm} could not be loaded from {where}: {error}") from error
    return _built(model, recipe, "pretrained", str(where))


def _hub_endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _is_cached(config: Any) -> bool:
    """Whether the hub's file is on this machine already, so that no connection is needed."""
    from huggingface_hub import try_to_load_from_cache

    if not config.hf_hub_id:
        return False
    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(config.hf_hub_id, name), str) for name in names)


def _reachable(url: str) -> bool:
    """Whether a connection to the host (or to the proxy that leads there) opens within ``HUB_TIMEOUT``."""
    parts = urlsplit(os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=HUB_TIMEOUT):
            return True
    except OSError:
        return False


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read .safetensors, or .pth / .pt without unpickling anything but tensors; unwraps ``model``/``state_dict``.

    Raises:
        WeightsError: no such file, another format, or something else than weights within.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix in (".pth", ".pt"):
            return _unwrap(torch.load(path, map_location="cpu", weights_only=True), path)
    except WeightsError:
        raise
    except FileNotFoundError as error:
        raise WeightsError(f"no weights file {path}") from error
    except Exception as error:  # each reader has exceptions of its own, and pickle any
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"cannot read weights from {path}: {reason} (only tensors are read; objects in a checkpoint are never run)"
        ) from error
    raise WeightsError(f"{path} is no weights file: give .safetensors, .pth or .pt")


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds no state dict: save model.state_dict(), alone or under 'model' or 'state_dict'")
    return dict(content)


def _fit(state: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Rename what DeiT's and DDP's checkpoints name otherwise; resample position embeddings to another grid."""
    renamed = {
        key.removeprefix("module.").replace(".gamma_1", ".ls1.gamma").replace(".gamma_2", ".ls2.gamma"): value
        for key, value in state.items()
    }
    ours, theirs = model.state_dict().get("pos_embed"), renamed.get("pos_embed")
    if ours is None or theirs is None or ours.ndim != 3 or theirs.ndim != 3 or ours.shape[1] == theirs.shape[1]:
        return renamed, ()
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    patches = theirs.shape[1] - prefix
    if round(patches**0.5) ** 2 != patches or ours.shape[2] != theirs.shape[2]:
        return renamed, ()
    renamed["pos_embed"] = resample_abs_pos_embed(theirs, model.patch_embed.grid_size, num_prefix_tokens=prefix)
    return renamed, (f"position embeddings resampled from {patches} to {ours.shape[1] - prefix} patches",)


def _check_fit(state: Mapping[str, Tensor], model: nn.Module, path: Path) -> None:
    ours = model.state_dict()
    problems = [f"missing {key}" for key in ours if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in ours]
    problems += [
        f"{key} is {tuple(state[key].shape)}, the model has {tuple(ours[key].shape)}"
        for key in ours
        if key in state and state[key].shape != ours[key].shape
    ]
    if problems:
        more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise WeightsError(f"the weights in {path} are of another model: {'; '.join(problems[:6])}{more}")


def _built(model: nn.Module, recipe: Recipe, source: Source, detail: str, notes: tuple[str, ...] = ()) -> BuiltModel:
    return BuiltModel(model.eval(), recipe, source, detail, state_sha256(model.state_dict()), notes)


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and bytes of all weights, in alphabetical order."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
