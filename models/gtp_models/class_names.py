"""Class names: of a file, and those that a built model has."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtp_models.errors import ConfigError
from gtp_models.recipes.reading import IMAGENET
from gtp_runtime.messages import is_text, one_line
from gtp_runtime.opening import read_regular

if TYPE_CHECKING:
    from gtp_models.weights import BuiltModel

LARGEST = 1 << 24  # bytes; 20,000 class names take half a megabyte
Names = tuple[list[str] | None, list[str] | None]


def read_class_names(file: Path | str) -> str | list[str]:
    """Read class names in the order of the classes.

    Args:
        file: lines, one name each; a JSON list; or a JSON table ``{"0": "cat"}``, ``{"cat": 0}`` (torchvision's
            ``class_to_idx``), or one with ``id2label`` or ``label_names`` (a config.json). The word "imagenet-1k"
            is returned as it is.

    Raises:
        ConfigError: no such file, or it holds no class names.
    """
    if str(file) == IMAGENET:
        return IMAGENET
    try:
        text = read_regular(file, LARGEST).decode("utf-8-sig")
        names = _of_json(json.loads(text)) if text.lstrip()[:1] in ("[", "{") else text.rstrip().splitlines()
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read class names from {file}: {one_line(reason)}; or say {IMAGENET}") from error
    names = [name.strip() if isinstance(name, str) else "" for name in names]
    broken = next((place for place, name in enumerate(names) if not name or not is_text(name)), None)
    if broken is not None or not names:
        raise ConfigError(f"{file} has no name of class {broken or 0}: it takes one name a line, a JSON list or table")
    return names


def _of_json(content: Any) -> list[Any]:
    """Return the names of a JSON document, in the order of the classes.

    Raises:
        ValueError: it is none that is known.
    """
    if isinstance(content, Mapping):
        content = next((content[key] for key in ("id2label", "label_names") if key in content), content)
    if isinstance(content, list):
        return content
    if not isinstance(content, Mapping):
        raise ValueError("it is neither a list nor a table of names")
    turned = all(isinstance(value, int) for value in content.values())
    numbered = {str(number): name for name, number in content.items()} if turned else dict(content)
    missing = next((number for number in range(len(numbered)) if str(number) not in numbered), None)
    if missing is not None or len(numbered) != len(content):
        raise ValueError(f"class {missing if missing is not None else 0} has no name, or two classes have one number")
    return [numbered[str(number)] for number in range(len(numbered))]


def names_of(built: "BuiltModel", classes: int) -> tuple[Names, str]:
    """Return the class names of a model and further ids of the same classes, None where unknown, and a note.

    Names that the recipe gives are taken. Without any, timm's weights of ImageNet-1k have ImageNet's; 1,000 classes of
    another origin need not be these.

    Args:
        built: the model.
        classes: its number of classes; 0 if it outputs features. One logit has two names, or the one of its class 1.

    Raises:
        ConfigError: the recipe gives another number of names.
    """
    labels = built.recipe.labels
    if isinstance(labels, list):
        if classes == 1 and len(labels) == 1:
            labels = [f"not {labels[0]}", labels[0]]
        _check_number(len(labels), 2 if classes == 1 else classes)
        return (labels, None), ""
    if labels == IMAGENET:
        _check_number(1000, classes)
        return _of_imagenet(), ""
    if classes != 1000:
        return (None, None), ""
    if _is_imagenets(built):
        return _of_imagenet(), ""
    return (None, None), (
        f"class names are unknown, as 1,000 classes need not be ImageNet's: --class-names {IMAGENET} (in a recipe file "
        f"labels: {IMAGENET}) says that they are"
    )


def _check_number(names: int, classes: int) -> None:
    if not classes:
        raise ConfigError(f"{names} class names have no effect: the output is features; leave them out (--class-names)")
    if names != classes:
        raise ConfigError(
            f"{names} class names do not fit {classes} classes: give one for each (--class-names, labels)"
        )


def _is_imagenets(built: "BuiltModel") -> bool:
    """Whether timm's own weights of ImageNet-1k are meant: they were loaded, or stand-ins of them are random."""
    recipe = built.recipe
    if built.source == "file" or recipe.weights is not None:
        return False
    if built.source == "random" and "num_classes" in recipe.model_args:
        return False
    import timm

    config = timm.get_pretrained_cfg(recipe.timm)
    return config is not None and config.num_classes == 1000 and "in1k" in (config.tag or "")


def _of_imagenet() -> Names:
    from timm.data import ImageNetInfo

    info = ImageNetInfo(IMAGENET)
    return info.label_descriptions(), info.label_names()
