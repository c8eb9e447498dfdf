"""Fits what a weights file holds to a timm model: translated by timm's own filters, resampled, and compared."""

import io
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from gtp_models.checkpoints import SHOWN, Checkpoint, listed
from gtp_models.errors import WeightsError
from gtp_models.timm_models import REJECTIONS
from gtp_runtime.messages import one_line

# what pretraining leaves beside the weights of a ViT: MAE's decoder, DINO's projection, counters
PRETRAINING = re.compile(
    r"decoder_|decoder\.|(dino_head|ibot_head)\.|head\.(mlp|last_layer)\.|n_averaged$|local_cls_norm\.|mask_token$"
)
POSITIONS = ("pos_embed", "visual.trunk.pos_embed", "visual.pos_embed", "visual.positional_embedding")
Grid = tuple[int, int]  # rows and columns of patches


def translate(checkpoint: Checkpoint, model: Any) -> Checkpoint:
    """Translate a checkpoint to the names of a timm model, by the filter of the model's family in timm.

    Args:
        checkpoint: as ``read_checkpoint`` returns it.
        model: a timm model with the grid of the file's position embeddings (``file_grid``); it may be on
            the meta device.

    Raises:
        WeightsError: the filter cannot handle the file.
    """
    state = {_layer_scale(key, model): value for key, value in checkpoint.state.items()}
    filter_fn = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        with redirect_stdout(io.StringIO()):  # some filters print
            state = filter_fn(state, model) if filter_fn else state
    except REJECTIONS as error:
        raise WeightsError(
            f"timm cannot translate {checkpoint.path} for {type(model).__name__}: {one_line(error)}; it is of another "
            f"kind of model (it has {listed(checkpoint.state)})"
        ) from error
    known = model.state_dict()
    dropped = [key for key in state if PRETRAINING.match(key) and key not in known]
    notes = (f"left out what only pretraining uses ({listed(dropped)})",) if dropped else ()
    state = {key: value for key, value in state.items() if key not in dropped}
    return replace(checkpoint, state=state, notes=(*checkpoint.notes, *notes))


def _layer_scale(key: str, model: Any) -> str:
    """DeiT III's names of layer scale; Eva uses them itself."""
    if hasattr(model.blocks[0], "gamma_1"):
        return key
    return re.sub(r"\.gamma_([12])$", r".ls\1.gamma", key)


def file_grid(
    checkpoint: Checkpoint, model: Any, known: Mapping[Grid, str], img_size: tuple[int, int] | None
) -> tuple[Grid, str] | None:
    """Return the (rows, columns) of a file's position embeddings, and how they are known; None without any.

    Args:
        checkpoint: as ``read_checkpoint`` returns it.
        model: the timm model, whose position embeddings may have another grid.
        known: grids that the file may have, and in words where each is from; the first that fits is taken.
        img_size: (height, width) in pixels that the file was trained with, where the user says so.

    Raises:
        WeightsError: the number of positions has no such grid.
    """
    positions = next((checkpoint.state[name] for name in POSITIONS if name in checkpoint.state), None)
    if positions is None or positions.ndim not in (2, 3) or getattr(model, "pos_embed", None) is None:
        return None
    count, patch = positions.shape[-2], model.patch_embed.patch_size
    own = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
    patches = list(dict.fromkeys(count - prefix for prefix in (own, 1, 0, model.num_prefix_tokens) if count > prefix))
    if img_size is not None:
        rows, columns = img_size[0] // patch[0], img_size[1] // patch[1]
        if rows * columns in patches:
            return (rows, columns), ""
        raise WeightsError(
            f"{checkpoint.path} has {count} positions, and {img_size[0]}x{img_size[1]} pixels have "
            f"{rows * columns} patches: give the --weights-img-size that it was trained with"
        )
    for grid, origin in known.items():
        if grid[0] * grid[1] in patches:
            return grid, origin
    for number in patches:
        side = round(number**0.5)
        if side**2 == number:
            return (side, side), "taken for a square"
    raise WeightsError(
        f"{checkpoint.path} has {count} positions, which are no square of patches: say --weights-img-size "
        "HEIGHTxWIDTH, the image size that it was trained with"
    )


def resample(checkpoint: Checkpoint, old: Grid, model: Any, assumed: str, antialias: bool = True) -> Checkpoint:
    """Resample position embeddings to a model's grid, bicubic: antialiased as timm does, or not, as transformers."""
    new = tuple(model.patch_embed.grid_size)
    positions = checkpoint.state.get("pos_embed")
    if positions is None or old == new or not positions.is_floating_point():
        return checkpoint
    prefix = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
    sizes: dict[str, Any] = {"new_size": list(new), "old_size": list(old), "num_prefix_tokens": prefix}
    resampled = resample_abs_pos_embed(positions, **sizes, antialias=antialias)
    grids = " to ".join("x".join(map(str, grid)) for grid in (old, new))
    note = f"position embeddings resampled from {grids} patches" + (f" ({assumed})" if assumed else "")
    return replace(checkpoint, state=checkpoint.state | {"pos_embed": resampled}, notes=(*checkpoint.notes, note))


def classes_of(checkpoint: Checkpoint, model: Any) -> int:
    """Return the number of classes of a translated file; 0 if it has no classifier."""
    names = model.pretrained_cfg.get("classifier") or "head"
    weight = checkpoint.state.get(f"{names if isinstance(names, str) else names[0]}.weight")
    return weight.shape[0] if weight is not None and weight.ndim == 2 else 0


def without_classifier(checkpoint: Checkpoint, model: Any) -> Checkpoint:
    """Leave out the classifier of a file where the model has none."""
    if model.num_classes:
        return checkpoint
    known = model.state_dict()
    heads = [key for key in checkpoint.state if re.match(r"(head|head_dist|aux_head)\.", key) and key not in known]
    if not heads:
        return checkpoint
    state = {key: value for key, value in checkpoint.state.items() if key not in heads}
    note = f"left out the file's classifier ({', '.join(sorted(heads))})"
    return replace(checkpoint, state=state, notes=(*checkpoint.notes, note))


def check_fit(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Check that a translated file has every weight of a model, in its shape, and no other.

    Raises:
        WeightsError: says how many fit, what the likely cause is, and shows names of both.
    """
    ours, theirs = model.state_dict(), checkpoint.state
    missing = [key for key in ours if key not in theirs]
    extra = [key for key in theirs if key not in ours]
    other = [key for key in ours if key in theirs and theirs[key].shape != ours[key].shape]
    if not missing and not extra and not other:
        return
    fitting = len(ours) - len(missing) - len(other)
    parts = [f"{fitting} of the model's {len(ours)} weights fit"]
    parts += [f"missing: {listed(missing)}"] if missing else []
    parts += [f"not in the model: {listed(extra)}"] if extra else []
    parts += [f"{key} is {tuple(theirs[key].shape)}, the model has {tuple(ours[key].shape)}" for key in other[:SHOWN]]
    raise WeightsError(
        f"the weights in {checkpoint.path} do not fit: {'; '.join(parts)}. {_cause(ours, theirs, missing, other)}"
    )


def _cause(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], missing: list[str], other: list[str]) -> str:
    """Say the likely cause of a misfit, and what to do."""
    if len(missing) == len(ours):
        return _cause_of_names(ours, theirs)
    heads = [key for key in other if key.startswith("head")]
    if other and len(heads) == len(other) and not missing:
        return f"It has {theirs[heads[0]].shape[0]} classes: give --num-classes {theirs[heads[0]].shape[0]}"
    patches = "patch_embed.proj.weight"
    if patches in other and ours[patches].shape[1] != theirs[patches].shape[1]:
        channels = theirs[patches].shape[1]
        return f"It takes images of {channels} channels: give model_args: {{in_chans: {channels}}} in a recipe file"
    if _size(ours) != _size(theirs):
        words = [f"{width} channels and {depth} layers" for width, depth in (_size(theirs), _size(ours))]
        return f"It is of another model: it has {words[0]}, this one {words[1]}; name the model that it is of"
    return "It is of another variant of this model: name that one, or give its model_args in a recipe file"


def _cause_of_names(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    last = list(ours)[-1]
    prefixed = [key for key in theirs if key.endswith(f".{last}")]
    if prefixed:
        return f"All names begin with {prefixed[0].removesuffix(last)!r}: remove it, and save the state dict again"
    return "It is of another project or another kind of model: docs/which-files.md says what is read"


def _size(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return the width and the number of layers that a state dict is of; 0 where unknown."""
    widths = (value.shape[0] for key, value in state.items() if key == "patch_embed.proj.weight")
    layers = [int(key.split(".")[1]) for key in state if re.match(r"blocks\.\d+\.", key)]
    return next(widths, 0), max(layers, default=-1) + 1
