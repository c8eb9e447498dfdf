"""Reads weights files and adapts them to a model, or raises an error with the reason."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from gtp_models.errors import WeightsError, WeightsUnavailableError
from gtp_runtime.opening import check_regular
from gtp_runtime.text import one_line

PICKLED = (".pth", ".pt", ".pth.tar")  # the last is no archive, in spite of its name
SUFFIXES = (".safetensors", *PICKLED)
_HEADS = ("head.", "head_dist.", "aux_head.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read .safetensors, or .pth, .pt, .pth.tar without unpickling all but tensors; unwraps ``model``/``state_dict``.

    Raises:
        WeightsUnavailableError: no such file.
        WeightsError: another format, a file without weights, or entries that are no plain named tensors.
    """
    if not path.name.endswith(SUFFIXES):
        raise WeightsError(f"{path} is not a weights file: give .safetensors, .pth, .pt or .pth.tar")
    try:
        check_regular(path)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return _checked(load_file(path), path)
        _check_packing(path)
        return _checked(_unwrap(torch.load(path, map_location="cpu", weights_only=True), path), path)
    except WeightsError:
        raise
    except FileNotFoundError as error:
        raise WeightsUnavailableError(f"no weights file {path}: give one that exists") from error
    except pickle.UnpicklingError as error:  # its message tells how to unpickle the file all the same
        raise WeightsError(
            f"cannot read weights from {path}: it is damaged, or holds more than tensors (pickled objects are "
            "never executed); save model.state_dict() alone, best as .safetensors"
        ) from error
    except Exception as error:  # each reader has exceptions of its own, and pickle any
        reason = one_line(getattr(error, "strerror", None) or error) or type(error).__name__
        raise WeightsError(
            f"cannot read weights from {path}: {reason} (only tensors are read; pickled objects are never executed)"
        ) from error


def _check_packing(path: Path) -> None:
    """Check that an archive takes no more memory than its file: torch stores tensors as they are.

    Raises:
        WeightsError: some are packed.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise WeightsError(f"{path} is packed, as torch.save does not do: save model.state_dict() again")


def _unwrap(content: Any, path: Path) -> Mapping[Any, Any]:
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{path} holds no state dict: save model.state_dict(), alone or under 'model' or 'state_dict'"
        )
    return content


def _checked(state: Mapping[Any, Tensor], path: Path) -> dict[str, Tensor]:
    """Return a state dict of plain tensors with names, whose values are all in the file.

    Raises:
        WeightsError: names the first entry that is none.
    """
    for key, value in state.items():
        if not isinstance(key, str) or not key.isprintable():
            raise WeightsError(f"{path} has the key {key!r:.60}, and weights have names: save model.state_dict()")
        if problem := _problem(value):
            raise WeightsError(f"{key:.60} in {path} is {problem}: save plain tensors")
    return dict(state)


def _problem(value: Tensor) -> str:
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_nested:
        return f"no plain tensor ({value.layout}, {value.device.type})"
    if value.is_complex():
        return "complex"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"{tuple(value.shape)}, more values than the file holds"
    return ""


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
    if (
        patches < 1
        or round(patches**0.5) ** 2 != patches
        or not theirs.is_floating_point()
        or ours.shape[2] != theirs.shape[2]
    ):
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
