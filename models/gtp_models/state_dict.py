"""Reads weights files and adapts them to a model, or raises an error with the reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from gtp_models.errors import WeightsError, WeightsUnavailableError
from gtp_runtime.errors import first_line

PICKLED = (".pth", ".pt", ".pth.tar")  # the last is no archive, in spite of its name
SUFFIXES = (".safetensors", *PICKLED)
_HEADS = ("head.", "head_dist.", "aux_head.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read .safetensors, or .pth, .pt, .pth.tar without unpickling all but tensors; unwraps ``model``/``state_dict``.

    Raises:
        WeightsUnavailableError: no such file.
        WeightsError: another format, or a file without weights.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.name.endswith(PICKLED):
            return _unwrap(torch.load(path, map_location="cpu", weights_only=True), path)
    except WeightsError:
        raise
    except FileNotFoundError as error:
        raise WeightsUnavailableError(f"no weights file {path}: give one that exists") from error
    except Exception as error:  # each reader has exceptions of its own, and pickle any
        reason = first_line(error)
        raise WeightsError(
            f"cannot read weights from {path}: {reason} (only tensors are read; pickled objects are never executed)"
        ) from error
    raise WeightsError(f"{path} is not a weights file: give .safetensors, .pth, .pt or .pth.tar")


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{path} holds no state dict: save model.state_dict(), alone or under 'model' or 'state_dict'"
        )
    return dict(content)


def fit(state: dict[str, Tensor], model: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Rename keys of DeiT's and DDP's checkpoints; resample position embeddings to another grid; leave out
    the classifier where the model has none.

    Returns:
        The state dict, and notes of what was changed.
    """
    known = model.state_dict()
    renamed = {_renamed(key.removeprefix("module."), known): value for key, value in state.items()}
    heads = sorted(key for key in renamed if key.startswith(_HEADS)) if not model.num_classes else []
    for key in heads:
        del renamed[key]
    notes = (f"left out the file's classifier ({', '.join(heads)})",) if heads else ()
    ours, theirs = known.get("pos_embed"), renamed.get("pos_embed")
    if ours is None or theirs is None or ours.ndim != 3 or theirs.ndim != 3 or ours.shape[1] == theirs.shape[1]:
        return renamed, notes
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    patches = theirs.shape[1] - prefix
    if round(patches**0.5) ** 2 != patches or ours.shape[2] != theirs.shape[2]:
        return renamed, notes
    renamed["pos_embed"] = resample_abs_pos_embed(theirs, model.patch_embed.grid_size, num_prefix_tokens=prefix)
    return renamed, (*notes, f"position embeddings resampled from {patches} to {ours.shape[1] - prefix} patches")


def _renamed(key: str, known: Mapping[str, Tensor]) -> str:
    if key in known:  # Eva calls its layer scale so itself
        return key
    return key.replace(".gamma_1", ".ls1.gamma").replace(".gamma_2", ".ls2.gamma")


def check_fit(state: Mapping[str, Tensor], model: nn.Module, path: Path) -> None:
    """Raise ``WeightsError``, naming keys and shapes, unless a state dict fits a model."""
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
