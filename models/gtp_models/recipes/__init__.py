"""Recipes: a model by a short name, with its settings, image size, labels and published figures.

MODEL is the name of a recipe here, ``timm:NAME`` for any timm model, or the path of a recipe file.
"""

import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gtp_models.errors import ConfigError, UnknownModelError, closest
from gtp_models.methods import METHODS, make_settings
from gtp_models.methods.gtp.config import PRESETS, GTPConfig
from gtp_models.methods.settings import Settings
from gtp_models.recipes.reading import PIXEL_SWITCHES, problems, read_values
from gtp_runtime.atomic import write_bytes
from gtp_runtime.images.class_folders import Order

ELSEWHERE = ("timm:", "hf:", "hf-hub:", "local-dir:")  # what a model's name begins with that is no recipe's
HERE = Path(__file__).parent
AMOUNTS = {"num_prop", "keep", "macs"}  # ways to give the amount: one replaces the others
PAPERS = {"alpha", "graph", "num_neighbours", "propagation"}  # settings often meant for the form as published
CALIBRATED = {"calibration", "moves"}
NOT_MEASURED = {"threshold", *CALIBRATED}  # a calibration depends on every other setting


@dataclass(frozen=True)
class Recipe:
    """A model and its default settings.

    Attributes:
        name: the short name, also of the artifact directory.
        title: a description for users.
        timm: timm's model name, with its pretrained tag if it matters.
        gtp: arguments of ``GTPConfig``.
        model_args: further arguments of ``timm.create_model``.
        preprocessing: entries that replace timm's pretrained configuration (mean, std, crop_pct, …), and those of
            ``PIXEL_SWITCHES``.
        labels: "imagenet-1k", a list of class names, or None for those of timm's weights (``class_names.names_of``).
        activation: what makes probabilities of logits: "softmax", or "sigmoid" (each class by itself); None is
            "softmax", and "sigmoid" for one logit.
        weights: a weights file of the recipe's own, relative to the recipe file.
        weights_img_size: (height, width) in pixels that a weights file was trained with, where it is not the pretrained
            size of timm's model.
        ema: take the averaged (EMA) weights of a training run's file, where it has them.
        random_head: accept that pretrained weights of another number of classes leave the classifier random. The model
            then counts as one of random weights.
        projection: whether the head is a projection into a space of embeddings, not a classifier.
        class_order: "timm" or "torchvision": the order of class folders that the model was trained with; None is
            unknown, and timm's is assumed.
        images: a folder of test images, relative to the recipe file, with one sub-folder per class.
        calibration: a folder of training images to calibrate thresholds on, relative to the recipe file.
        reference: published figures and their source, for users.
        why: the reason for each setting that was chosen from the model's tokens and depth; empty for a file's settings.

    Raises:
        ConfigError: ``preprocessing`` has an unknown name, or a value outside of what makes sense.
    """

    name: str
    title: str
    timm: str
    gtp: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    labels: str | list[str] | None = None
    activation: str | None = None
    weights: Path | None = None
    weights_img_size: tuple[int, int] | None = None
    ema: bool = True
    random_head: bool = False
    projection: bool = False
    class_order: Order | None = None
    images: Path | None = None
    calibration: Path | None = None
    reference: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if problem := next(problems(self.preprocessing), ""):
            raise ConfigError(f"recipe {self.name}: {problem}")

    @property
    def overlay(self) -> dict[str, Any]:
        """What replaces timm's pretrained configuration: ``preprocessing`` without what timm does not have."""
        return {name: value for name, value in self.preprocessing.items() if name not in PIXEL_SWITCHES}

    @property
    def switches(self) -> dict[str, bool]:
        """What ``preprocessing`` says beyond timm's configuration, as arguments of ``Preprocessing``."""
        return {name: bool(self.preprocessing[name]) for name in PIXEL_SWITCHES if name in self.preprocessing}

    def settings(self, method: str = "gtp", preset: str | None = None, **overrides: Any) -> Settings:
        """Return a method's settings: the recipe's, if the method takes them, with the overrides that are not None.

        Args:
            method: a name in ``METHODS``.
            preset: of GTP, "paper" or "measured" (default: the recipe's, else "paper").
            overrides: settings by name.

        Raises:
            ConfigError: a setting that is unknown, that the method does not take, or that is not valid; an override
                that has no effect.
        """
        overrides = {name: value for name, value in overrides.items() if value is not None}
        hint = self._hint(method, preset, overrides)
        try:
            settings = self._make(method, preset, overrides)
        except ConfigError as error:
            raise ConfigError(f"{error}{hint}") from error
        for name, why in settings.unused().items():
            if name in overrides:
                raise ConfigError(f"{name}={overrides[name]!r} has no effect: {why}; or leave it out{hint}")
        return settings

    def leaves_schedule_open(self, method: str, preset: str | None, overrides: dict[str, Any]) -> bool:
        """Whether a preset alone says in which layers tokens leave: neither the recipe nor an override does."""
        own = self.gtp.keys() - self.why.keys()
        if method != GTPConfig.name or "schedule" in own or overrides.get("schedule") is not None:
            return False
        named = preset or self.gtp.get("preset", "")
        settings = self.settings(method, preset, **overrides)
        return "schedule" in PRESETS.get(named, {}) and not isinstance(settings.num_prop, tuple)

    def _hint(self, method: str, preset: str | None, overrides: dict[str, Any]) -> str:
        own = preset or self.gtp.get("preset", "paper")
        if method != GTPConfig.name or own == "paper" or not PAPERS & set(overrides):
            return ""
        return f"; the preset is {own}: --preset paper selects the form as published"

    def _make(self, method: str, preset: str | None, overrides: dict[str, Any]) -> Settings:
        if preset is None:
            values = self._defaults(method, overrides) | overrides
            if method == GTPConfig.name and "preset" in self.gtp:
                return GTPConfig.preset(self.gtp["preset"], **values)  # the recipe's settings override its preset
            return make_settings(method, **values)
        if method != GTPConfig.name:
            raise ConfigError(f"preset={preset!r}: only gtp has presets, not {method}")
        values = PRESETS.get(preset, {}) | overrides  # which override the recipe's settings
        if "num_prop" not in overrides:  # the recipe's number is a budget of MACs, for the layers of the preset
            overrides = values
        return GTPConfig.preset(preset, **self._defaults(method, values), **overrides)

    def _defaults(self, method: str, overrides: dict[str, Any]) -> dict[str, Any]:
        """Return the recipe's settings that a method takes and nothing overrides."""
        unknown = [name for name in self.gtp if name not in (*GTPConfig.option_names(), "preset")]
        if unknown:
            raise ConfigError(f"recipe {self.name}: gtp has no setting {', '.join(unknown)}")
        stale = set(overrides)
        if stale & AMOUNTS:
            stale |= AMOUNTS
        if any(self._changes(name, value) for name, value in overrides.items()):
            stale |= CALIBRATED
        options = set() if method == "dense" else set(METHODS[method].settings.option_names())
        return {name: value for name, value in self.gtp.items() if name in options - stale}

    def _changes(self, name: str, value: Any) -> bool:
        """Whether a setting makes the recipe's calibration stale: it was measured with another value."""
        measured = PRESETS.get(self.gtp.get("preset", ""), {}) | self.gtp
        own = measured.get(name, getattr(GTPConfig, name, None))
        return name not in NOT_MEASURED and _plain(value) != _plain(own)

    def sized(self, img_size: tuple[int, int] | None) -> "Recipe":
        """Return the recipe for images of (height, width) pixels; None changes nothing."""
        if img_size is None:
            return self
        own = self.model_args.get("img_size") if self.weights else None
        trained = self.weights_img_size or own  # the size of the recipe's own weights
        if isinstance(trained, int):
            trained = (trained, trained)
        args = self.model_args | {"img_size": tuple(img_size)}
        return replace(self, model_args=args, weights_img_size=tuple(trained) if trained else None)

    def choices(self, settings: Settings) -> list[str]:
        """Return a note on the settings that were chosen for this model and are still in ``settings``."""
        reasons = {name: why for name, why in self.why.items() if getattr(settings, name, None) == self.gtp[name]}
        if not isinstance(settings, GTPConfig) or not settings.uses_neighbours:
            reasons.pop("num_neighbours", None)
        if settings.described().get("preset") != self.gtp.get("preset"):  # other tokens leave, in other layers
            reasons = {name: why for name, why in reasons.items() if name not in AMOUNTS}
        amounts = settings.num_prop if isinstance(settings.num_prop, tuple) else (settings.num_prop,)
        if not reasons or not any(amount != 0 for amount in amounts):
            return []
        choices = "; ".join(f"{name} {_words(self.gtp[name])} ({reason})" for name, reason in reasons.items())
        return [
            f"{self.name} has no recipe, so these settings were chosen: {choices}. Options or a recipe file override"
        ]


FIELDS = tuple(entry.name for entry in fields(Recipe) if entry.name != "why")  # that a file may have


def recipe_names() -> list[str]:
    """Names of the recipes that come with gtp-export, in alphabetical order."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def load_recipe(model: str, img_size: tuple[int, int] | None = None) -> Recipe:
    """Return the recipe of MODEL; without settings of its own, these are chosen for the model's tokens and depth.

    Args:
        model: a recipe name, ``timm:NAME``, the path of a .yaml file, a directory that transformers'
            ``save_pretrained`` or timm's ``save_for_hf`` wrote (also ``local-dir:DIR``), or ``hf:USER/NAME`` (also
            ``hf-hub:USER/NAME``).
        img_size: (height, width) in pixels (default: the model's own).

    Raises:
        UnknownModelError: no such recipe, timm model or file; the message offers the closest names.
        UnsupportedModelError: a timm model that GTP cannot patch.
        ConfigError: the recipe file is not one, or the model cannot be made with this size.

    >>> recipe = load_recipe("deit_s")
    >>> recipe.timm, recipe.settings().name
    ('deit_small_patch16_224.fb_in1k', 'gtp')
    """
    if model.startswith("timm:"):
        return _from_timm(model.removeprefix("timm:"), img_size)
    if model.endswith((".yaml", ".yml")):
        recipe = _read(Path(model)).sized(img_size)
        return recipe if recipe.gtp else _with_choices(recipe)
    if model in recipe_names():
        return _read(HERE / f"{model}.yaml").sized(img_size)
    if model.startswith(("hf:", "hf-hub:")):
        from gtp_models.hub import fetch_repository

        return _from_directory(fetch_repository(model.partition(":")[2]), img_size, model.rpartition("/")[2])
    place = Path(model.removeprefix("local-dir:"))
    if place.is_dir() or model.startswith("local-dir:"):
        return _from_directory(place, img_size, place.resolve().name)
    raise UnknownModelError(
        f"no recipe is called {model!r}: {closest(model, recipe_names())}; timm:NAME selects any timm ViT, "
        "hf:USER/NAME a model of Hugging Face's hub, and a directory what transformers or timm saved there"
    )


def check_model(model: str) -> None:
    """Check MODEL as far as it goes without timm: that a recipe of this name exists, or that a file is a recipe.

    Raises:
        UnknownModelError, ConfigError: as ``load_recipe``.
    """
    if model.endswith((".yaml", ".yml")):
        _read(Path(model))
    elif not model.startswith(ELSEWHERE) and model not in recipe_names() and not Path(model).is_dir():
        load_recipe(model)


def _from_directory(path: Path, img_size: tuple[int, int] | None, title: str) -> Recipe:
    """Return the recipe of a directory of transformers or timm."""
    from gtp_models.huggingface import read_hub_model

    hub_model = read_hub_model(path)
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", title) or "model"
    recipe = Recipe(
        name,
        title,
        hub_model.timm,
        model_args=hub_model.model_args,
        preprocessing=hub_model.preprocessing,
        labels=hub_model.labels,
        activation=hub_model.activation,
        weights=path,
        projection=hub_model.projection,
    )
    return _with_choices(recipe.sized(img_size))


def _read(path: Path) -> Recipe:
    return Recipe(**read_values(path, FIELDS))


def check_recipe_place(path: Path) -> None:
    """Check that a recipe can be written to a file.

    Raises:
        ConfigError: its name does not end in .yaml, its folder cannot be written, or it exists and is no recipe.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{path}: a recipe file's name ends in .yaml")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}, or it cannot be written")
    if path.exists():
        try:
            _read(path)
        except (ConfigError, UnknownModelError) as error:
            raise ConfigError(
                f"{path} exists and is not a recipe, so it is not replaced: choose another name"
            ) from error


def write_recipe(recipe: Recipe, config: GTPConfig, path: Path) -> None:
    """Write a recipe with other GTP settings to a file.

    Raises:
        ConfigError: as ``check_recipe_place``, or the disk fails.
    """
    import yaml

    check_recipe_place(path)
    plain = type("PlainDumper", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})  # none are read again
    defaults = vars(Recipe("", "", ""))
    values = {name: value for name, value in vars(recipe).items() if value != defaults[name]}
    values = {name: value for name, value in values.items() if name not in ("name", "why")}
    values |= {name: str(value.resolve()) for name, value in values.items() if isinstance(value, Path)}
    try:
        text = yaml.dump(values | {"gtp": config.to_dict()}, Dumper=plain, sort_keys=False, allow_unicode=True)
        write_bytes(path, text.encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def _from_timm(name: str, img_size: tuple[int, int] | None) -> Recipe:
    return _with_choices(Recipe(name=name.replace(".", "_"), title=name, timm=name).sized(img_size))


def _with_choices(recipe: Recipe) -> Recipe:
    """Return a recipe with the settings that suit its model."""
    from gtp_models.choosing import choose  # torch
    from gtp_models.frame.patch import check_supported
    from gtp_models.timm_models import create_outline

    model = create_outline(recipe.timm, recipe.model_args, recipe.overlay)
    check_supported(model)
    gtp, why = choose(model)
    return replace(recipe, gtp=gtp, why=why)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _words(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
