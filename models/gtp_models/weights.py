"""Builds a recipe's model with weights from timm's hub, a local file or a seed; a fallback is never silent."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from gtp_models import hub
from gtp_models.checkpoint_fit import (
    Grid,
    check_fit,
    classes_of,
    file_grid,
    resample,
    translate,
    without_classifier,
)
from gtp_models.checkpoints import SUFFIXES, read_checkpoint
from gtp_models.errors import ConfigError, HubUnreachableError, WeightsError, WeightsUnavailableError
from gtp_models.huggingface import read_hub_model
from gtp_models.huggingface_weights import load_hub_weights
from gtp_models.recipes import Recipe
from gtp_models.timm_models import check_timm_name, create, create_outline
from gtp_runtime.messages import one_line

Source = Literal["pretrained", "file", "random"]
MOST_PARAMETERS = 4_000_000_000  # 16 GB in float32
LOCAL = Path("weights")  # where ``auto`` looks for NAME.safetensors, NAME.pth, NAME.pt and NAME.pth.tar


@dataclass(frozen=True)
class BuiltModel:
    """A model in eval mode, and where its weights come from.

    Attributes:
        model: the timm model, not patched.
        recipe: what it was made from.
        source: "pretrained", "file" or "random".
        detail: the hub entry, the file or the seed.
        sha256: SHA-256 of all tensors: names, shapes, dtypes and values.
        notes: changes made while loading.
        path: the file or directory that the weights were read from; None for a hub's and random ones.
    """

    model: Any  # a timm model, whose attributes nn.Module's type hides
    recipe: Recipe
    source: Source
    detail: str
    sha256: str
    notes: tuple[str, ...] = ()
    path: Path | None = None


def build_model(recipe: Recipe, weights: str = "pretrained", seed: int = 0) -> BuiltModel:
    """Build a recipe's model and load its weights.

    Args:
        recipe: the recipe.
        weights: "pretrained" (the recipe's own file, else timm's hub), a path, "random", or "auto": a file
            ``weights/NAME.safetensors`` (.pth, .pt, .pth.tar), else pretrained, else, without a hub, random.
        seed: seed of random weights.

    Raises:
        WeightsError: the file cannot be read or does not fit; the classifier would be random.
        WeightsUnavailableError: pretrained weights are not available.
        ConfigError: timm rejects the arguments.
        UnknownModelError: timm has no such model.

    >>> from gtp_models import load_recipe
    >>> built = build_model(load_recipe("digits"))
    >>> built.source, built.model.num_classes
    ('pretrained', 10)
    """
    check_timm_name(recipe.timm)
    if recipe.model_args:
        _check_parameters(recipe)
    if weights == "auto":
        return _build_auto(recipe, seed)
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _built(_create(recipe), recipe, "random", f"seed {seed}")
    if weights != "pretrained":
        return _build_from_file(recipe, Path(weights), "file")
    if recipe.weights:
        return _build_from_file(recipe, recipe.weights, "pretrained")
    return _build_from_hub(recipe, seed)


def _build_auto(recipe: Recipe, seed: int) -> BuiltModel:
    for suffix in SUFFIXES:
        if (LOCAL / f"{recipe.name}{suffix}").exists():
            return build_model(recipe, str(LOCAL / f"{recipe.name}{suffix}"))
    try:
        return build_model(recipe, "pretrained", seed)
    except HubUnreachableError as error:
        built = build_model(recipe, "random", seed)
        local = LOCAL / f"{recipe.name}{SUFFIXES[0]}"
        return replace(built, notes=(f"random weights were used, because {error}; to use your own, write {local}",))


def _create(recipe: Recipe, pretrained: bool = False) -> Any:
    return create(recipe.timm, recipe.model_args, recipe.overlay, pretrained)


def _check_parameters(recipe: Recipe) -> None:
    """Check, before it takes memory, that a model of a recipe's own sizes is not enormous.

    Raises:
        ConfigError: it has more than ``MOST_PARAMETERS``, or timm rejects the sizes.
    """
    count = sum(value.numel() for value in outline(recipe).parameters())
    if count > MOST_PARAMETERS:
        raise ConfigError(f"recipe {recipe.name} makes {recipe.timm} with {count:.1e} parameters: give smaller sizes")


def outline(recipe: Recipe) -> Any:
    """Build a recipe's model without weights, on the meta device.

    Raises:
        ConfigError: timm rejects the arguments.
        UnknownModelError: timm has no such model.
    """
    return create_outline(recipe.timm, recipe.model_args, recipe.overlay)


def _build_from_file(recipe: Recipe, path: Path, source: Source) -> BuiltModel:
    if path.is_dir():
        return _build_from_directory(recipe, path, source)
    checkpoint = read_checkpoint(path, recipe.ema)
    model = outline(recipe)
    grid, assumed = file_grid(checkpoint, model, _known_grids(recipe, model), recipe.weights_img_size) or (None, "")
    if grid is not None and grid != tuple(model.patch_embed.grid_size):
        rows, columns = (side * patch for side, patch in zip(grid, model.patch_embed.patch_size, strict=True))
        model = outline(recipe.sized((rows, columns)))
    checkpoint = translate(checkpoint, model)
    recipe, notes = _with_its_classes(recipe, model, classes_of(checkpoint, model))
    model = _create(recipe)
    if grid is not None:
        checkpoint = resample(checkpoint, grid, model, assumed)
    checkpoint = without_classifier(checkpoint, model)
    check_fit(checkpoint, model)
    model.load_state_dict(checkpoint.state)
    return replace(_built(model, recipe, source, one_line(path.name), (*checkpoint.notes, *notes)), path=path)


def _build_from_directory(recipe: Recipe, path: Path, source: Source) -> BuiltModel:
    """Build a model of a directory of transformers or timm, with its weights."""
    hub_model = read_hub_model(path)
    checkpoint = load_hub_weights(hub_model)
    model = _create(recipe)
    _set_layer_norms(model, hub_model.layer_norm_eps)
    if "pos_embed" in checkpoint.state and hasattr(model, "pos_embed"):
        patch = model.patch_embed.patch_size
        old = hub_model.trained_size[0] // patch[0], hub_model.trained_size[1] // patch[1]
        checkpoint = resample(checkpoint, old, model, "", hub_model.antialias)
    checkpoint = without_classifier(checkpoint, model)
    check_fit(checkpoint, model)
    model.load_state_dict(checkpoint.state)
    return replace(_built(model, recipe, source, one_line(path.name), checkpoint.notes), path=path)


def _set_layer_norms(model: nn.Module, eps: float | None) -> None:
    for module in model.modules():
        if eps is not None and isinstance(module, nn.LayerNorm):
            module.eps = eps


def _known_grids(recipe: Recipe, model: Any) -> dict[Grid, str]:
    """Return the grids that a file of this model may have, and where each is from."""
    config, patch = timm.get_pretrained_cfg(recipe.timm), model.patch_embed.patch_size
    own = tuple(model.patch_embed.grid_size)
    if config is None or ("img_size" in recipe.model_args and recipe.weights):
        return {own: ""}
    size = config.input_size[-2:]
    pretrained = (size[0] // patch[0], size[1] // patch[1])
    return {pretrained: f"taken for the grid of {recipe.timm}; --weights-img-size says otherwise"} | {own: ""}


def _with_its_classes(recipe: Recipe, model: Any, classes: int) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe with as many classes as its file has, where the recipe does not say."""
    if "num_classes" in recipe.model_args or classes == model.num_classes:
        return recipe, ()
    note = f"{classes} classes, as in the file" if classes else "the file has no classifier: the output is features"
    return replace(recipe, model_args=recipe.model_args | {"num_classes": classes}), (note,)


def _build_from_hub(recipe: Recipe, seed: int) -> BuiltModel:
    config = timm.get_pretrained_cfg(recipe.timm)
    if config is None or not config.has_weights:
        raise WeightsUnavailableError(
            f"timm has no pretrained weights for {recipe.timm}: give --weights FILE or random"
        )
    classes = int(recipe.model_args.get("num_classes", config.num_classes))
    adapted = bool(classes) and classes != config.num_classes
    if adapted and not recipe.random_head:
        raise WeightsError(
            f"the pretrained weights of {recipe.timm} have {config.num_classes} classes, so that a classifier of "
            f"{classes} would be random: give --weights FILE, --output features, or --random-head to try it"
        )
    where = config.hf_hub_id or config.url
    if not hub.is_cached(config) and not hub.is_reachable(config):
        raise HubUnreachableError(
            f"the weights of {recipe.timm} cannot be fetched ({where}: no connection within {hub.TIMEOUT:.0f} s): "
            "connect, or give --weights FILE (.safetensors, .pth), or --weights random to try it without weights"
        )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of a classifier that the weights do not have
            model = _create(recipe, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailableError(
            f"the weights of {recipe.timm} could not be loaded from {where}: {error}"
        ) from error
    if adapted:
        note = f"the classifier of {classes} classes is random: the pretrained weights have {config.num_classes}"
        return _built(model, recipe, "random", f"{where}, with a random classifier", (note,))
    return _built(model, recipe, "pretrained", str(where))


def _built(model: nn.Module, recipe: Recipe, source: Source, detail: str, notes: tuple[str, ...] = ()) -> BuiltModel:
    notes = (*_timms_notes(recipe), *notes) if source != "random" else notes
    return BuiltModel(model.eval(), recipe, source, detail, state_sha256(model.state_dict()), notes)


def _timms_notes(recipe: Recipe) -> tuple[str, ...]:
    """Return what timm notes on a name: that its weights are meant for another variant, for example."""
    config = timm.get_pretrained_cfg(recipe.timm)
    notes = getattr(config, "notes", None) or ()
    return tuple(f"timm on {recipe.timm}: {note}" for note in ([notes] if isinstance(notes, str) else notes))


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and bytes of all weights, in alphabetical order."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
