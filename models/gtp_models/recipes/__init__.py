"""Recipes: a model by a short name, with its settings, image size, labels and published figures.

MODEL is the name of a recipe here, ``timm:NAME`` for any timm model, or the path of a recipe file.
"""

import difflib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gtp_models.errors import ConfigError, UnknownModelError
from gtp_models.methods import METHODS, make_settings
from gtp_models.methods.gtp.config import PRESETS, GTPConfig
from gtp_models.methods.settings import Settings
from gtp_models.recipes.reading import read_values
from gtp_runtime.atomic import write_bytes

HERE = Path(__file__).parent
AMOUNTS = {"num_prop", "keep", "macs"}  # ways to give the amount: one replaces the others
PAPERS = {"alpha", "graph", "num_neighbours", "propagation"}  # settings often meant for the form as published
NOT_MEASURED = {"threshold", "calibration"}  # a calibration depends on every other setting
TRANSFORMERS = ["vit*", "deit*", "lvvit*"]  # where to look for close matches of a wrong timm name


@dataclass(frozen=True)
class Recipe:
    """A model and its default settings.

    Attributes:
        name: the short name, also of the artifact directory.
        title: a description for users.
        timm: timm's model name, with its pretrained tag if it matters.
        gtp: arguments of ``GTPConfig``.
        model_args: further arguments of ``timm.create_model``.
        preprocessing: entries that replace timm's pretrained configuration (mean, std, crop_pct, …).
        labels: "imagenet-1k", a list of class names, or None.
        weights: a weights file of the recipe's own, relative to the recipe file.
        weights_img_size: (height, width) in pixels that a weights file was trained with, where it is not the pretrained
            size of timm's model.
        images: a folder of test images, relative to the recipe file, with one sub-folder per class.
        calibration: a folder of training images to calibrate thresholds on, relative to the recipe file.
        reference: published figures and their source, for users.
        why: the reason for each setting that was chosen from the model's tokens and depth; empty for recipe files.
    """

    name: str
    title: str
    timm: str
    gtp: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    labels: str | list[str] | None = None
    weights: Path | None = None
    weights_img_size: tuple[int, int] | None = None
    images: Path | None = None
    calibration: Path | None = None
    reference: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

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
        given = {name: value for name, value in overrides.items() if value is not None}
        hint = self._hint(method, preset, given)
        try:
            settings = self._make(method, preset, given)
        except ConfigError as error:
            raise ConfigError(f"{error}{hint}") from error
        for name, why in settings.unused().items():
            if name in given:
                raise ConfigError(f"{name}={given[name]!r} has no effect: {why}; or leave it out{hint}")
        return settings

    def _hint(self, method: str, preset: str | None, given: dict[str, Any]) -> str:
        own = preset or self.gtp.get("preset", "paper")
        if method != GTPConfig.name or own == "paper" or not PAPERS & set(given):
            return ""
        return f"; the preset is {own}: --preset paper selects the form as published"

    def _make(self, method: str, preset: str | None, given: dict[str, Any]) -> Settings:
        if preset is None:
            values = self._defaults(method, given) | given
            if method == GTPConfig.name and "preset" in self.gtp:
                return GTPConfig.preset(self.gtp["preset"], **values)  # the recipe's settings override its preset
            return make_settings(method, **values)
        if method != GTPConfig.name:
            raise ConfigError(f"preset={preset!r}: only gtp has presets, not {method}")
        values = PRESETS.get(preset, {}) | given  # which override the recipe's settings
        if "num_prop" not in given:  # the recipe's number is a budget of MACs, for the layers of the preset
            given = values
        return GTPConfig.preset(preset, **self._defaults(method, values), **given)

    def _defaults(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        """Return the recipe's settings that a method takes and nothing overrides."""
        unknown = [name for name in self.gtp if name not in (*GTPConfig.option_names(), "preset")]
        if unknown:
            raise ConfigError(f"recipe {self.name}: gtp has no setting {', '.join(unknown)}")
        replaced = set(given)
        if replaced & AMOUNTS:
            replaced |= AMOUNTS
        if any(self._changes(name, value) for name, value in given.items()):
            replaced.add("calibration")
        taken = set() if method == "dense" else set(METHODS[method].settings.option_names())
        return {name: value for name, value in self.gtp.items() if name in taken - replaced}

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
        kept = {name: why for name, why in self.why.items() if getattr(settings, name, None) == self.gtp[name]}
        if not isinstance(settings, GTPConfig) or not settings.uses_neighbours:
            kept.pop("num_neighbours", None)
        if settings.described().get("preset") != self.gtp.get("preset"):  # other tokens leave, in other layers
            kept = {name: why for name, why in kept.items() if name not in AMOUNTS}
        if not kept or settings.num_prop == 0 or (isinstance(settings.num_prop, tuple) and not any(settings.num_prop)):
            return []
        chosen = "; ".join(f"{name} {_words(self.gtp[name])} ({reason})" for name, reason in kept.items())
        return [
            f"{self.name} has no recipe, so these settings were chosen: {chosen}. Options or a recipe file override"
        ]


def recipe_names() -> list[str]:
    """Names of the recipes that come with gtp-export, in alphabetical order."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def load_recipe(model: str, img_size: tuple[int, int] | None = None) -> Recipe:
    """Return the recipe of MODEL; for ``timm:NAME`` one with settings chosen for its tokens and depth.

    Args:
        model: a recipe name, ``timm:NAME``, or the path of a .yaml file.
        img_size: (height, width) in pixels (default: the model's own).

    Raises:
        UnknownModelError: no such recipe, timm model or file; the message offers the closest names.
        UnsupportedModelError: a timm model that GTP cannot patch.
        ConfigError: the recipe file is not one, or the model cannot be made with this size.
    """
    if model.startswith("timm:"):
        return _from_timm(model.removeprefix("timm:"), img_size)
    if model.endswith((".yaml", ".yml")):
        return _read(Path(model)).sized(img_size)
    if model in recipe_names():
        return _read(HERE / f"{model}.yaml").sized(img_size)
    raise UnknownModelError(
        f"no recipe is called {model!r}: {_suggest(model, recipe_names())}; timm:NAME selects any timm ViT"
    )


def _read(path: Path) -> Recipe:
    return Recipe(**read_values(path))


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
    values = {name: value for name, value in vars(recipe).items() if value and name not in ("name", "why")}
    values |= {name: str(value.resolve()) for name, value in values.items() if isinstance(value, Path)}
    try:
        text = yaml.dump(values | {"gtp": config.to_dict()}, Dumper=plain, sort_keys=False, allow_unicode=True)
        write_bytes(path, text.encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def _from_timm(name: str, img_size: tuple[int, int] | None) -> Recipe:
    check_timm_name(name)
    from gtp_models.choosing import choose
    from gtp_models.frame.patch import check_supported
    from gtp_models.weights import outline

    recipe = Recipe(name=name.replace(".", "_"), title=name, timm=name).sized(img_size)
    model = outline(recipe)
    check_supported(model)
    gtp, why = choose(model)
    return replace(recipe, gtp=gtp, why=why, labels="imagenet-1k" if model.num_classes == 1000 else None)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _words(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_timm_name(name: str) -> None:
    """Raise ``UnknownModelError``, offering the closest names, unless timm has such a model and tag."""
    import timm

    import gtp_models.lvvit  # noqa: F401 - registers what timm does not have

    if not timm.is_model(name):
        raise UnknownModelError(f"timm has no model {name!r}: {_suggest(name, timm.list_models(TRANSFORMERS))}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tagged = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
        raise UnknownModelError(f"timm has no weights {name!r}: {_suggest(name, tagged)}") from error


def _suggest(name: str, names: list[str]) -> str:
    begin = sorted((known for known in names if name and known.startswith(name)), key=len)
    close = begin[:3] or difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"there are {', '.join(names[:20])}{more}"
