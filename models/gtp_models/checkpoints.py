"""Reads weights files as training runs and hubs leave them, and fits them to a timm model by timm's own rules.

A file is read (tensors, and plain values by name; nothing is executed), unwrapped (EMA weights first, as timm does),
freed of the prefixes that wrappers add, translated by the ``checkpoint_filter_fn`` of the model's family in timm, and
compared with the model. Whatever was left out, assumed or resampled is a note.
"""

import argparse
import datetime
import importlib
import io
import pickle
import re
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from gtp_models.errors import WeightsError, WeightsUnavailableError
from gtp_models.timm_models import REJECTIONS
from gtp_runtime.messages import one_line
from gtp_runtime.opening import check_regular, named_in_utf8

SAFETENSORS = ".safetensors"
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")  # the last is no archive, in spite of its name
SUFFIXES = (SAFETENSORS, *PICKLED)

EMA = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "ema",
    "params_ema",
    "teacher",
)
RAW = (
    "model",
    "state_dict",
    "model_state_dict",
    "model_state",
    "net",
    "module",
    "weights",
    "model_weights",
    "params",
    "student",
)
EMA_PREFIXES = ("model_ema.", "ema_model.", "ema.")
PREFIXES = ("module.", "model.", "net.", "backbone.", "vit.", "encoder.", "base_encoder.", *EMA_PREFIXES)
# what torch.compile, FSDP and activation checkpointing put before the names of a module, at any depth
WRAPPED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# how keys begin that belong to a model, its own or another project's
ROOTS = (
    "cls_token",
    "pos_embed",
    "patch_embed.",
    "blocks.",
    "visual.",
    "conv1.",
    "vit.embeddings.",
    "vit.encoder.",
    "deit.",
    "dinov2.",
    "embeddings.",
    "vision_model.",
    "vision_encoder.",
    "beit3.",
    "preprocessor.",
    "radio_model.",
)
# what pretraining leaves beside the weights of a ViT: MAE's decoder, DINO's projection, counters
PRETRAINING = re.compile(
    r"decoder_|decoder\.|(dino_head|ibot_head)\.|head\.(mlp|last_layer)\.|n_averaged$|local_cls_norm\.|mask_token$"
)
POSITIONS = ("pos_embed", "visual.trunk.pos_embed", "visual.pos_embed", "visual.positional_embedding")
Grid = tuple[int, int]  # rows and columns of patches
DEEPEST = 8  # wrappers in each other
SHOWN = 3  # keys of each kind in a message


def _plain_dict(*_: Any) -> dict[Any, Any]:
    """Stand for ``defaultdict``, whose own items follow in the file."""
    return {}


ARRAYS: Any = importlib.import_module("numpy._core.multiarray")  # private: how numpy pickles scalars
# Beside tensors: plain values that training scripts keep with them. Each is data alone; none runs code.
PLAIN: list[Any] = [
    argparse.Namespace,
    (_plain_dict, "collections.defaultdict"),
    datetime.datetime,
    datetime.timedelta,
    datetime.timezone,
    *((kind, f"builtins.{kind.__name__}") for kind in (list, dict, int, float)),
    np.dtype,
    np.ndarray,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
    (PurePosixPath, "pathlib.PosixPath"),
    (PurePosixPath, "pathlib._local.PosixPath"),
    (PureWindowsPath, "pathlib.WindowsPath"),
    (PureWindowsPath, "pathlib._local.WindowsPath"),
    (OrderedDict, "lightning_fabric.utilities.data.AttributeDict"),
    (OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    *(
        (getattr(ARRAYS, name), f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
]


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file, by the names of the project that saved them.

    Attributes:
        path: the file.
        state: tensors by name, without wrappers and prefixes.
        notes: what was chosen and left out.
    """

    path: Path
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path, ema: bool = True, unwrap: bool = True) -> Checkpoint:
    """Read a weights file; nothing in it is executed.

    Args:
        path: .safetensors, or .pth, .pt, .bin, .ckpt, .pth.tar of ``torch.save``.
        ema: take the averaged (EMA) weights where the file has them, as timm does.
        unwrap: look inside of what a training run wraps around, and remove prefixes.

    Raises:
        WeightsUnavailableError: no such file.
        WeightsError: another format, TorchScript, a file without weights or with objects that are not data.
    """
    content = _load(path)
    if not unwrap:
        return Checkpoint(path, _plain_tensors(content, path))
    notes: list[str] = []
    state = _plain_tensors(_unwrapped(content, path, ema, notes), path)
    state = _without_prefixes(state, ema, notes)
    return Checkpoint(path, state, tuple(notes))


def _load(path: Path) -> Any:
    if not path.name.endswith(SUFFIXES):
        raise WeightsError(f"{path} is not a weights file: give {', '.join(SUFFIXES)}")
    try:
        check_regular(path)
        if path.suffix == SAFETENSORS:
            from safetensors.torch import load_file

            with named_in_utf8(path) as place:
                return load_file(place)
        _check_archive(path)
        with torch.serialization.safe_globals(PLAIN), named_in_utf8(path) as place:
            return torch.load(place, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except FileNotFoundError as error:
        raise WeightsUnavailableError(f"no weights file {path}: give one that exists") from error
    except pickle.UnpicklingError as error:  # its message tells how to unpickle the file all the same
        raise WeightsError(
            f"cannot read weights from {path}: it {_objects(path)} (pickled objects are never executed); "
            "save model.state_dict() alone, best as .safetensors"
        ) from error
    except Exception as error:  # each reader has exceptions of its own, and pickle any
        reason = one_line(getattr(error, "strerror", None) or error) or type(error).__name__
        raise WeightsError(
            f"cannot read weights from {path}: {reason} (only tensors are read; pickled objects are never executed)"
        ) from error


def _objects(path: Path) -> str:
    """Say which objects in a pickled file are not data."""
    try:
        with torch.serialization.safe_globals(PLAIN):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # a damaged file
        names = []
    return f"holds objects of {', '.join(names[:SHOWN])}" if names else "is damaged, or holds more than tensors"


def _check_archive(path: Path) -> None:
    """Check that a file of ``torch.save`` is no TorchScript, and takes no more memory than its size.

    Raises:
        WeightsError: it is, or some of its members are packed, which ``torch.save`` does not do.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.filename.partition("/")[2].startswith("code/") for member in members):
        raise WeightsError(
            f"{path} is TorchScript, a program, and programs are never executed here: where you trust it, save "
            "torch.jit.load(FILE).state_dict() with torch.save or safetensors, and give that file"
        )
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise WeightsError(f"{path} is packed, as torch.save does not do: save model.state_dict() again")


def _unwrapped(content: Any, path: Path, ema: bool, notes: list[str]) -> Mapping[Any, Any]:
    """Return the state dict inside of a training run's file."""
    for _ in range(DEEPEST):
        if not isinstance(content, Mapping):
            break
        averaged = [name for name in EMA if isinstance(content.get(name), Mapping) and content[name]]
        raw = [name for name in RAW if isinstance(content.get(name), Mapping) and content[name]]
        wrappers = averaged + raw if ema else raw + averaged
        if not wrappers:
            break
        if averaged and (raw or averaged == ["teacher"]):
            kind = "the averaged (EMA) weights" if wrappers[0] in averaged else "the weights that are not averaged"
            notes.append(f"took {kind} of the file ({wrappers[0]!r} of {', '.join(map(repr, wrappers))})")
        content = content[wrappers[0]]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        names = ", ".join(map(repr, list(content)[:SHOWN])) if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(
            f"{path} holds no state dict (it has {names}): save model.state_dict(), alone or under 'model' or "
            "'state_dict'"
        )
    return content


def _plain_tensors(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Return named tensors whose values are all in the file.

    Raises:
        WeightsError: names the first entry that is none.
    """
    for key, value in state.items():
        if not isinstance(key, str) or not key.isprintable():
            raise WeightsError(f"{path} has the key {key!r:.60}, and weights have names: save model.state_dict()")
        if problem := _problem(value):
            raise WeightsError(f"{key:.60} in {path} is {problem}: save plain tensors")
    return dict(state)


def _problem(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}, not a tensor"
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_nested:
        return f"no plain tensor ({value.layout}, {value.device.type})"
    if value.is_complex():
        return "complex"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"{tuple(value.shape)}, more values than the file holds"
    return ""


def _without_prefixes(state: dict[str, Tensor], ema: bool, notes: list[str]) -> dict[str, Tensor]:
    """Remove what wrappers put before every name: ``module.``, ``model.``, ``backbone.`` and their nestings."""
    state = {WRAPPED.sub("", key): value for key, value in state.items()}
    while not any(key.startswith(ROOTS) for key in state):
        counts = _prefixes(state)
        averaged = [prefix for prefix in EMA_PREFIXES if counts[prefix]]
        plain = [prefix for prefix, _ in counts.most_common() if prefix not in averaged]
        order = averaged + plain if ema else plain + averaged
        if not order:
            break
        if averaged:
            notes.append(f"took the weights that begin with {order[0]!r}")
        prefix = order[0]
        others = [key for key in state if not key.startswith(prefix) and not key.startswith(PREFIXES)]
        if others:
            notes.append(f"left out what does not begin with {prefix!r} ({_listed(others)})")
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state


def _prefixes(state: Mapping[str, Tensor]) -> Counter[str]:
    """Count the names with each prefix behind which a model's names, or a further prefix, begin."""
    starts = [(key, prefix) for key in state for prefix in PREFIXES if key.startswith(prefix)]
    inner = {prefix for key, prefix in starts if key.removeprefix(prefix).startswith((*ROOTS, *PREFIXES))}
    return Counter(prefix for _, prefix in starts if prefix in inner)


def _listed(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


# --- to timm's names -------------------------------------------------------------------------------------------------


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
            f"kind of model (it has {_listed(checkpoint.state)})"
        ) from error
    known = model.state_dict()
    dropped = [key for key in state if PRETRAINING.match(key) and key not in known]
    notes = (f"left out what only pretraining uses ({_listed(dropped)})",) if dropped else ()
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
    parts += [f"missing: {_listed(missing)}"] if missing else []
    parts += [f"not in the model: {_listed(extra)}"] if extra else []
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
