"""Reads weights files as training runs and hubs leave them; ``checkpoint_fit`` fits them to a timm model.

A file is read (tensors, and plain values by name; nothing is executed), unwrapped (EMA weights first, as timm does) and
freed of the prefixes that wrappers add. Whatever was left out or chosen is a note.
"""

import argparse
import datetime
import importlib
import pickle
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtp_models.errors import WeightsError, WeightsUnavailableError
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
            notes.append(f"left out what does not begin with {prefix!r} ({listed(others)})")
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state


def _prefixes(state: Mapping[str, Tensor]) -> Counter[str]:
    """Count the names with each prefix behind which a model's names, or a further prefix, begin."""
    starts = [(key, prefix) for key in state for prefix in PREFIXES if key.startswith(prefix)]
    inner = {prefix for key, prefix in starts if key.removeprefix(prefix).startswith((*ROOTS, *PREFIXES))}
    return Counter(prefix for _, prefix in starts if prefix in inner)


def listed(keys: Iterable[str]) -> str:
    """Return the first few names, in one line."""
    names = sorted(keys)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
