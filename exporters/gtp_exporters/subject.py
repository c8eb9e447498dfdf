"""What is exported: a model with its weights, inputs and outputs, the reference's images, calibrated settings.

The model is built from a recipe, or taken (``take``) from a caller that holds a timm model, patched or not.
"""

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from timm.data import resolve_model_data_config
from torch import nn

from gtp_exporters.options import ExportOptions
from gtp_exporters.outputs import LOGITS, Outputs, end_at
from gtp_exporters.reference import ReferenceImages, folder_images, synthetic_images
from gtp_models.choosing import choose
from gtp_models.class_names import names_of
from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.frame.patch import check_supported, is_patched, remove
from gtp_models.heads import DENSE, HEADLESS, gives_features, without_head
from gtp_models.methods.gtp.calibration import calibrate
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.settings import Settings
from gtp_models.plan import Plan, head_macs, make_plan
from gtp_models.recipes import Recipe
from gtp_models.weights import BuiltModel, build_model, state_sha256
from gtp_runtime.errors import ManifestError
from gtp_runtime.images.class_folders import KnownClasses
from gtp_runtime.images.folders import find_images, spread
from gtp_runtime.images.preprocessing import Preprocessing
from gtp_runtime.messages import Progress, one_line, quiet

LIMIT = 256  # images that thresholds are calibrated on, spread over the folder
STILL = 64  # images that fixed moves are fitted on: their tokens are held in memory together
CHUNK = 8
_RESIZE_MODES = {"squash": "squash", "border": "contain"}


def preprocessing_of(model: Any, switches: Mapping[str, Any] = MappingProxyType({})) -> Preprocessing:
    """Return the preprocessing of a timm model, at the image size it was made with.

    Args:
        model: a timm model.
        switches: ``exif`` and ``antialias``, where they are not the defaults (``Recipe.switches``).

    Raises:
        ConfigError: the recipe's ``preprocessing`` holds something that is none.
    """
    try:
        config = resolve_model_data_config(model)
        preprocessing = to_preprocessing({**config, "input_size": (3, *model.patch_embed.img_size)})
        return replace(preprocessing, **switches)
    except (TypeError, ValueError, ArithmeticError, LookupError, AssertionError, ManifestError) as error:
        reason = one_line(error).removesuffix(": export again")
        raise ConfigError(f"the model's preprocessing cannot be used ({reason}): mend it in the recipe") from error


def to_preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """Translate timm's resolved data configuration (``timm.data.resolve_data_config``)."""
    crop = list(config["input_size"][-2:])
    resize = [math.floor(side / config["crop_pct"]) for side in crop]
    mode = _RESIZE_MODES.get(config["crop_mode"], "shortest" if resize[0] == resize[1] else "cover")
    mean, std = ([float(value) for value in config[name]] for name in ("mean", "std"))
    fill = [round(255 * value) for value in mean] if mode == "contain" else [0, 0, 0]
    return Preprocessing(resize, mode, crop, config["interpolation"], mean, std, fill)


@dataclass(frozen=True)
class Subject:
    """A model that is exported.

    Attributes:
        built: the timm model and where its weights come from.
        preprocessing: turns an image into the input.
        classes: number of classes; 0 if the output is features.
        labels, label_ids: class names, and further ids of the same classes; None where unknown.
        notes: what users should know about it.
        outputs: what its graphs give.
        images: of the reference, where the caller gives them.
        rest: multiply-accumulates, for one image, of what is behind the model's blocks; None where it is the model's
            own head.
    """

    built: BuiltModel
    preprocessing: Preprocessing
    classes: int
    labels: list[str] | None
    label_ids: list[str] | None
    notes: tuple[str, ...]
    outputs: Outputs = LOGITS
    images: ReferenceImages | None = None
    rest: int | None = None

    @property
    def model(self) -> Any:
        """The timm model."""
        return self.built.model

    def plan(self, settings: Settings) -> Plan:
        """Return the plan of settings, with what is behind the model. Raises as ``make_plan``."""
        plan = make_plan(self.model, settings)
        if self.rest is None:
            return plan
        own = head_macs(self.model, plan.shape.patches + plan.shape.num_prefix)
        return replace(plan, head=self.rest, dense=plan.dense - own + self.rest)

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """What makes probabilities of logits: "softmax" or "sigmoid"."""
        sigmoid = self.classes == 1 or self.built.recipe.activation == "sigmoid"
        return "sigmoid" if sigmoid else "softmax"

    @property
    def output(self) -> str:
        """What the outputs are: "logits", "features", "patches" or "map"."""
        return self.outputs.kind


def make_subject(recipe: Recipe, weights: str, seed: int, options: ExportOptions) -> Subject:
    """Build a recipe's model and find out its inputs and outputs.

    Raises:
        UnsupportedModelError: it takes images of another number of channels than three.
        ModelsError: the model cannot be built, its weights are not available, there is no head to keep, or the class
            names do not fit.
    """
    return describe(build_model(without_head(recipe) if options.output in HEADLESS else recipe, weights, seed), options)


def describe(built: BuiltModel, options: ExportOptions) -> Subject:
    """Find out the inputs and outputs of a model that is built. Raises as ``make_subject``."""
    name = built.recipe.timm
    _check_channels(built.model, name)
    features, note = gives_features(built.model, name, options.output, built.recipe.projection)
    classes = 0 if features else built.model.num_classes
    _check_activation(built.recipe, classes)
    if built.recipe.class_order is not None and not classes:
        raise ConfigError("--class-order (class_order) has no effect, as the output is features: leave it out")
    (labels, label_ids), unnamed = names_of(built, classes)
    notes = (*built.notes, *filter(None, (note, unnamed)))
    preprocessing = preprocessing_of(built.model, built.recipe.switches)
    pooled = "features" if features else "logits"
    outputs = Outputs(options.output if options.output in DENSE else pooled, options.layers)
    end_at(built.model, outputs)
    return Subject(built, preprocessing, classes, labels, label_ids, notes, outputs)


def _check_channels(model: Any, name: str) -> None:
    kernels = (module.in_channels for module in model.patch_embed.modules() if isinstance(module, nn.Conv2d))
    channels = next(kernels, 3)  # of the first: LV-ViT embeds by several
    if channels != 3:
        raise UnsupportedModelError(
            f"{name} with in_chans {channels} takes images of {channels} channels, and files are decoded to RGB: build "
            "it with in_chans 3 (of grey: patch_embed.proj.weight.repeat(1, 3, 1, 1) / 3 answers the same)"
        )


def _check_activation(recipe: Recipe, classes: int) -> None:
    if recipe.activation is not None and not classes:
        raise ConfigError(f"activation {recipe.activation} has no effect, as the output is features: leave it out")
    if recipe.activation == "softmax" and classes == 1:
        raise ConfigError("the softmax of one logit is always 1: leave --activation (activation) out, or say sigmoid")


def reference_images(subject: Subject, options: ExportOptions) -> ReferenceImages:
    """Read the images of the reference: those of ``--data``, else the recipe's own, else synthetic ones.

    Raises:
        ImageError: no images, or one that cannot be read.
    """
    own = subject.built.recipe.images
    classes = 2 if subject.classes == 1 else subject.classes
    known = KnownClasses(subject.labels, subject.label_ids, classes, subject.built.recipe.class_order)
    if options.data is not None:
        return folder_images(options.data, subject.preprocessing, known)
    if subject.images is not None:
        return subject.images
    if own is not None:
        return folder_images(own, subject.preprocessing, known, limit=None, origin="the recipe's own")
    return synthetic_images(subject.preprocessing.crop)


def calibrated(
    subject: Subject, settings: Settings, folder: Path | None, progress: Progress, *, shared: bool = False
) -> Settings:
    """Return the settings, calibrated on a folder or on the recipe's own images if they need it.

    Args:
        subject: the model.
        settings: settings of any method.
        folder: calibration images.
        progress: called with the current task.
        shared: the folder calibrates something else as well, so it may have nothing to calibrate here.

    Raises:
        ConfigError: a folder and nothing to calibrate, or the other way round.
        ImageError: no images, or one that cannot be read.
    """
    if not isinstance(settings, GTPConfig) or not settings.needs_calibration:
        if folder is not None and not shared:
            raise ConfigError(
                "calibration images have no effect here: they are for --schedule fitted, --selection Fixed, and "
                "--threshold calibrated with a --sparsity below 1; leave out --calib-data"
            )
        return settings
    recipe = subject.built.recipe
    return calibrate_on(subject.model, settings, folder or recipe.calibration, progress, switches=recipe.switches)


def calibrate_on(
    model: Any,
    config: GTPConfig,
    folder: Path | None,
    progress: Progress = quiet,
    *,
    switches: Mapping[str, Any] = MappingProxyType({}),
) -> GTPConfig:
    """Return the settings with z or moves measured on the images of a folder.

    At most ``LIMIT`` images are taken (``STILL`` for moves), spread over the folder.

    ``switches`` are those of ``preprocessing_of``.

    Raises:
        ConfigError: no folder, or nothing to calibrate.
        ImageError: no images, or one that cannot be read.
    """
    if folder is None:
        what = "selection='Fixed'" if config.needs_moves else "threshold='calibrated'"
        raise ConfigError(
            f"{what} needs calibration images: give --calib-data DIR, a folder of a few dozen like those that the "
            "model will see"
        )
    limit = LIMIT if config.needs_thresholds else STILL
    paths, preprocessing = spread(find_images(folder), limit), preprocessing_of(model, switches)

    def batch(start: int) -> torch.Tensor:
        progress("running calibration images", start / len(paths))
        return torch.from_numpy(np.stack([preprocessing(path) for path in paths[start : start + CHUNK]]))

    return calibrate(model, config, map(batch, range(0, len(paths), CHUNK)))


def take(module: nn.Module, output: str) -> tuple[BuiltModel, Settings | None]:
    """Return a copy of a module as a built model, not patched, and the settings that it was patched with.

    Args:
        module: a timm model; it stays as it is, and its own ``pretrained_cfg`` says how images are prepared.
        output: as in ``ExportOptions``; where it needs no classifier, that is left out.

    Raises:
        UnsupportedModelError: no timm model, or one that cannot be patched.
    """
    config: dict[str, Any] = dict(getattr(module, "pretrained_cfg", None) or {})
    if not config.get("architecture"):
        raise UnsupportedModelError(
            f"{type(module).__name__} has no pretrained_cfg of timm: make it with timm.create_model, or give a recipe"
        )
    settings = _settings_of(module)
    model: Any = remove(copy.deepcopy(module).cpu().float().eval())
    check_supported(model)
    gtp, why = choose(model)
    name = ".".join(filter(None, (config["architecture"], config.get("tag"))))
    recipe = Recipe(re.sub(r"[^A-Za-z0-9_-]+", "_", name), name, name, gtp=gtp, why=why)
    if output in HEADLESS:
        model.reset_classifier(0)
        recipe = replace(without_head(recipe), model_args={})
    return BuiltModel(model, recipe, "file", "a module in memory", state_sha256(model.state_dict())), settings


def _settings_of(module: Any) -> Settings | None:
    if not is_patched(module):
        return None
    settings: Settings | None = getattr(module.blocks, "settings", None)
    return settings
