"""Whole modules: a decoder, a head or several around one supported ViT, with outputs of their own."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gtp_exporters.options import ExportOptions
from gtp_exporters.outputs import Outputs
from gtp_exporters.pipeline import Exported, check_export_threads, export_subject
from gtp_exporters.reference import ReferenceImages
from gtp_exporters.subject import Subject, preprocessing_of
from gtp_models.choosing import choose
from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.frame.families import why_not
from gtp_models.frame.families.forms import FAMILIES
from gtp_models.frame.families.transformers_layers import View, as_timm
from gtp_models.frame.patch import check_supported, remove, trace_tokens
from gtp_models.methods.apply import apply
from gtp_models.methods.settings import Settings
from gtp_models.recipes import Recipe
from gtp_models.weights import BuiltModel, state_sha256
from gtp_runtime.images.preprocessing import Preprocessing
from gtp_runtime.manifest import OutputInfo
from gtp_runtime.manifest.schema import TRACES
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.reference import OTHERS, TWIN

OUTSIDE = 0.02  # of the pixels' range: how far images may be outside of it, before their mean and std are wrong


def export_module(
    module: nn.Module,
    images: Float[Tensor, "n 3 height width"],
    directory: Path | str,
    *,
    settings: Settings,
    data: Path | None = None,
    backbone: str | None = None,
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
    seed: int = 0,
    options: ExportOptions | None = None,
    check: bool = True,
    report: bool = True,
    threads: int = 1,
    progress: Progress = quiet,
) -> Exported:
    """Export any module around one supported ViT, patched, and its dense baseline, as ``export`` does.

    Tokens that left are put back on the grid, so that the module's own forward works unchanged.

    Args:
        module: takes (B, 3, H, W) float32 images and returns a tensor, or a tuple, list or mapping of tensors
            (B, ...), whose names are kept. It stays as it is.
        images: preprocessed; they are the reference, as 8-bit pixels, where ``data`` gives no other images.
        directory: the artifact directory, as ``output`` of ``export``.
        settings: of any method; a budget is a share of the ViT's MACs. The schedule "fitted" is measured on
            ``options.calib_data``, by the module's outputs.
        data: a folder of images for the reference.
        backbone: path of the ViT in the module, like "encoder.vit" (default: the only one).
        preprocessing: from image files to the input (default: what the ViT's ``pretrained_cfg`` says).
        name: of the model (default: the name of the module's class).
        seed: of a fitted schedule.
        options: as for ``export``; ``output`` and ``layers`` stay at their defaults.
        check, report, threads, progress: as for ``export``.

    Raises:
        UnsupportedModelError: no supported ViT or several, or the module runs the ViT's blocks by itself.
        ConfigError: images of another size, or normalised otherwise than ``preprocessing`` says; outputs that are no
            tensors of floats.
        LimitError, StaticCheckError, ParityFailedError, OutputError: as ``export``.
    """
    check_export_threads(threads)
    options = options or ExportOptions()
    options = options if data is None else replace(options, data=data)
    check_has_own_outputs(options.output, options.layers)
    subject = module_subject(module, images, settings, backbone, preprocessing, name)
    given = (settings, options, seed, check, report, threads, progress)
    return export_subject(lambda: subject, subject.built.recipe, Path(directory), *given)


def check_has_own_outputs(output: str, layers: tuple[int, ...]) -> None:
    """Raise ``ConfigError`` where options say what a module gives."""
    if output != "auto" or layers:
        raise ConfigError("a module has outputs of its own: leave output and layers out")


def find_backbone(module: nn.Module, path: str | None = None, size: tuple[int, int] | None = None) -> tuple[str, Any]:
    """Return the path of a module's ViT in it, and the ViT; of transformers' a view with the names of timm.

    ``size`` is that of the images, (height, width): some of transformers' take several.

    Raises:
        UnsupportedModelError: there is none or several, or it cannot be patched.
    """
    parts = dict(module.named_modules())
    if path is not None:
        if path not in parts:
            raise UnsupportedModelError(f"{type(module).__name__} has no {path!r}: it has {', '.join(_tops(module))}")
        vit = as_timm(parts[path], size)
        check_supported(vit)
        return path, vit
    vits = {name: vit for name, vit in ((name, as_timm(part, size)) for name, part in parts.items()) if _is_vit(vit)}
    if len(vits) != 1:
        what = f"{len(vits)} ViTs: name one with backbone={' or '.join(map(repr, vits))}" if vits else _none_in(parts)
        raise UnsupportedModelError(f"{type(module).__name__} holds {what} (it has {', '.join(_tops(module))})")
    ((path, vit),) = vits.items()
    check_supported(vit)
    return path, vit


def _is_vit(part: Any) -> bool:
    return any(family.holds(part) for family in FAMILIES.values())


def _none_in(parts: Mapping[str, nn.Module]) -> str:
    reasons = ((type(part).__name__, why_not(part)) for part in parts.values())
    name, reason = next((both for both in reasons if both[1]), ("", ""))
    return "no ViT of timm or transformers that can be patched" + (f": {name} has {reason}" if reason else "")


def _tops(module: nn.Module) -> list[str]:
    return [f"{name} ({type(part).__name__})" for name, part in module.named_children()]


@dataclass(frozen=True)
class ModuleOutputs(Outputs):
    """The outputs of a module around a ViT.

    Attributes:
        module: the module.
        own_names: of its outputs, in order.
    """

    kind: str = "tensor"
    module: Any = None
    own_names: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the outputs, in order."""
        return list(self.own_names)

    @property
    def is_dense(self) -> bool:
        """Tokens are put back: nobody knows what the module does with them."""
        return True

    def whole(self, model: Any) -> Any:  # noqa: ARG002
        """Return what is traced: the module, of which the ViT is a part."""
        return self.module

    def of(self, model: Any, images: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Run the module on (B, 3, H, W) images."""
        return tuple(named_tensors(self.module(images)).values())

    def described(self, model: Any) -> dict[str, OutputInfo]:  # noqa: ARG002
        """Return what the manifest says of each output."""
        return {name: OutputInfo("tensor") for name in self.own_names}


def named_tensors(outputs: Any) -> dict[str, Tensor]:
    """Return the tensors of a module's outputs by name: of a mapping its own, else "output", or "output_0", ….

    Raises:
        ConfigError: something that is no tensor of floats.
    """
    if isinstance(outputs, Tensor):
        outputs = {"output": outputs}
    elif isinstance(outputs, list | tuple):
        outputs = {f"output_{place}": value for place, value in enumerate(outputs)}
    if not isinstance(outputs, Mapping):
        raise ConfigError(f"the module returns a {type(outputs).__name__}: return a tensor, or a tuple or dict of them")
    tensors = {str(name): value for name, value in outputs.items() if value is not None}
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.ndim:
            raise ConfigError(f"output {name!r} of the module is no tensor (B, ...) of floats: leave it out in forward")
        if name in (*OTHERS, *TRACES) or name.startswith(TWIN) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
            raise ConfigError(f"output {name!r} of the module cannot keep its name: name it with letters and digits")
    return tensors


def module_subject(
    module: nn.Module,
    images: Tensor,
    settings: Settings,
    path: str | None,
    preprocessing: Preprocessing | None,
    name: str | None,
) -> Subject:
    """Return a copy of a module as what is exported; arguments and errors are those of ``export_module``."""
    _check_images(images)
    height, width = images.shape[2:]
    path, _ = find_backbone(module, path, (height, width))
    whole = copy.deepcopy(module).cpu().float().eval()
    vit: Any = as_timm(whole.get_submodule(path) if path else whole, (height, width))
    remove(vit)
    _check_size(images, vit)
    preprocessing = preprocessing or _preprocessing(vit)
    pixels = _pixels(images, preprocessing)
    with torch.inference_mode():
        names = tuple(named_tensors(whole(images[:1].cpu().float())))
    _check_runs_blocks(whole, vit, images, settings)
    gtp, why = choose(vit)
    title = name or type(module).__name__
    recipe = Recipe(re.sub(r"[^A-Za-z0-9_-]+", "_", title), title, _timm_name(vit), gtp=gtp, why=why)
    built = BuiltModel(vit, recipe, "file", "a module in memory", state_sha256(whole.state_dict()))
    outputs = ModuleOutputs(module=whole, own_names=names)
    given = ReferenceImages(pixels, None, "the given images")
    return Subject(built, preprocessing, 0, None, None, (), outputs, given, _macs_around(whole, vit, images))


def _macs_around(whole: nn.Module, vit: Any, images: Tensor) -> int:
    """Count the multiply-accumulates of one image behind the ViT's last block."""

    def count(forward: Any) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:  # inference mode hides linear layers
            forward(images[:1].cpu().float())
        return int(counter.get_total_flops()) // 2

    return max(0, count(whole) - count(vit.forward_features))


def _without_steps(settings: Settings, vit: Any) -> Settings:
    """Return settings of which no token leaves, to count a ViT without them."""
    return settings.resolved((0,) * len(vit.blocks))


def _preprocessing(vit: Any) -> Preprocessing:
    if isinstance(vit, View):
        raise ConfigError(f"{vit.name} does not say how images are prepared: give preprocessing=Preprocessing(...)")
    return preprocessing_of(vit)


def _timm_name(vit: Any) -> str:
    if isinstance(vit, View):
        return vit.name
    config = getattr(vit, "pretrained_cfg", None) or {}
    return str(config.get("architecture") or type(vit).__name__)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() or not len(images):
        raise ConfigError(f"images are {tuple(images.shape)} {images.dtype}: give preprocessed (N, 3, H, W) floats")


def _check_size(images: Tensor, vit: Any) -> None:
    size = tuple(vit.patch_embed.img_size)
    if tuple(images.shape[2:]) != size:
        raise ConfigError(f"images are {tuple(images.shape[2:])} pixels, and the ViT was made for {size}: give such")


def _pixels(images: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Return the 8-bit pixels (N, H, W, 3) that preprocessed images come from."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    shares = images.detach().cpu().float() * std + mean
    if shares.min() < -OUTSIDE or shares.max() > 1 + OUTSIDE:
        raise ConfigError(
            f"images are normalised otherwise than mean {preprocessing.mean}, std {preprocessing.std} (pixels from "
            f"{float(shares.min()):.2f} to {float(shares.max()):.2f} of 1): give preprocessing=Preprocessing(...)"
        )
    return (255 * shares).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def _check_runs_blocks(whole: nn.Module, vit: Any, images: Tensor, settings: Settings) -> None:
    """Raise ``UnsupportedModelError`` where a module runs the ViT's blocks one by one, or not at all."""
    apply(vit, _without_steps(settings, vit), restore=True)
    with torch.inference_mode(), trace_tokens(vit) as steps:
        whole(images[:1].cpu().float())
    if len(steps) < len(vit.blocks):
        raise UnsupportedModelError(
            f"{type(whole).__name__} runs {len(steps)} of the ViT's {len(vit.blocks)} blocks by its forward, and the "
            "patch is there: call the ViT's forward, forward_features, forward_intermediates or "
            "get_intermediate_layers, and leave out blocks behind the last that is used"
        )
    remove(vit)
