"""Options that several commands share, with their completion; and those of a method's settings."""

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from gtp_export import values
from gtp_models.heads import OUTPUTS
from gtp_models.methods.gtp.config import PRESETS, THRESHOLDS
from gtp_models.schedules import KINDS
from gtp_runtime.images.class_folders import ORDERS
from gtp_runtime.messages import Progress

MODEL_HELP = (
    "A recipe (gtp-export models), timm:NAME, a recipe file, a directory that transformers or timm saved, or "
    "hf:USER/NAME."
)
WEIGHTS_HELP = (
    "pretrained, a file (.safetensors, .pth, .pt, .bin, .ckpt, .pth.tar), random (seeded), or auto: a file "
    "weights/MODEL.safetensors (or .pth, ...), else pretrained, else random."
)
SIZE_HELP = "Image size in pixels: 224, or HEIGHTxWIDTH (default: the model's)."
METHOD_PANEL = "Settings of the method (default: the recipe's; for timm:NAME chosen by number of tokens and layers)"
LISTED = "gtp-export methods lists them"


def option(text: str, *flags: str, names: Callable[[], Iterable[str]] | None = None, **given: Any) -> Any:
    """Return an option whose default the help text says.

    Args:
        text: its help.
        flags: as it is typed, where that is not its name.
        names: gives what a shell completes; it is called then alone.
        given: further arguments of ``typer.Option``.
    """
    return typer.Option(*flags, help=text, **{"show_default": False, **_completion(names), **given})


def one_of(names: Iterable[str], **given: Any) -> dict[str, Any]:
    """Return arguments of ``option`` for one that takes these names: another one is a usage error."""
    allowed = tuple(names)

    def read(value: str) -> str:
        if value not in allowed:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}.")
        return value

    return {"parser": read, "names": lambda: allowed, "metavar": "|".join(allowed), **given}


def _completion(names: Callable[[], Iterable[str]] | None) -> dict[str, Any]:
    def complete(incomplete: str) -> list[str]:
        assert names is not None
        return [name for name in names() if name.startswith(incomplete)]

    return {} if names is None else {"autocompletion": complete}


def _recipes() -> list[str]:
    from gtp_models.recipes import recipe_names

    return recipe_names()


def weights() -> tuple[str, ...]:
    """Return the words that ``--weights`` takes beside files."""
    return "pretrained", "random", "auto"


def check_names(model: str, method: str = "gtp", preset: str | None = None, **settings: Any) -> None:
    """Refuse a model, a method, a preset or settings that cannot be, before torch is loaded for the right ones.

    Args:
        model, method, preset: as the user gave them.
        settings: of the method, those that the user gave; None is not given.

    Raises:
        UnknownModelError: no such recipe or file.
        ConfigError: no such method, preset or entry of an axis, amounts that exclude each other, or the recipe file is
            not one.
    """
    from gtp_models.declared import AXES, axis_names, check_timm
    from gtp_models.errors import ConfigError
    from gtp_models.methods import METHODS
    from gtp_models.methods.settings import Settings
    from gtp_models.recipes import check_model

    check_model(model)
    if model.startswith("timm:"):
        check_timm(model.removeprefix("timm:"))
    if method not in METHODS:
        raise ConfigError(f"method={method!r} is unknown: choose one of {', '.join(METHODS)}")
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"preset={preset!r} is unknown: choose one of {', '.join(PRESETS)}")
    for axis in AXES:
        name, names = settings.get(axis), axis_names(axis)
        if name is not None and names and name not in names:
            raise ConfigError(f"{axis}={name!r} is unknown: choose one of {', '.join(names)}")
    Settings(**{name: settings.get(name) for name in ("num_prop", "keep", "macs", "schedule")})


def _axis(axis: str) -> Callable[[], Iterable[str]]:
    def names() -> Iterable[str]:
        from gtp_models.declared import axis_names

        return axis_names(axis)

    return names


def check_class_order(data: Path | None, labels: Path | None, class_order: str | None) -> None:
    """Refuse options that say the classes of images which nothing names, or say them twice."""
    for name, value in (("--labels", labels), ("--class-order", class_order)):
        if data is None and value is not None:
            raise typer.BadParameter(f"{name} needs --data DIR: it says the classes of its images")
    if labels is not None and class_order is not None:
        raise typer.BadParameter("--class-order takes sub-folders for classes, --labels a file: give one of them")


def load_torch(tell: Progress) -> None:
    """Import torch, first of what exports need: where it is missing, the error names the extra that has all of it."""
    tell("loading torch")
    import torch  # noqa: F401


def _methods() -> Iterable[str]:
    from gtp_models.methods import METHODS

    return METHODS


Model = Annotated[str, typer.Argument(help=MODEL_HELP, show_default=False, **_completion(_recipes))]
Weights = Annotated[str, typer.Option(help=WEIGHTS_HELP, **_completion(weights))]
GraphPath = Annotated[Path, typer.Argument(help="A .onnx file, or an artifact directory.", show_default=False)]
ModelPath = Annotated[
    Path, typer.Argument(help="A .onnx or .engine file, or an artifact directory.", show_default=False)
]
Batch = Annotated[int, typer.Option("-b", "--batch", help="Images per run.", min=1)]
ImageSize = Annotated[
    Any,
    option(SIZE_HELP, parser=values.image_size, metavar="SIZE"),
]
DataFolder = Annotated[Path | None, option("A folder of images, one sub-folder per class; of any size.", "--data")]
Labels = Annotated[
    Path | None, option("With --data: a file that says the class of each image: a CSV, or ImageNet's ground truth.")
]
ClassOrder = Annotated[
    str | None,
    option(
        "The order of class folders in training: timm (the last folder of each path, 2 before 10) or torchvision (the "
        "first folder, 10 before 2). Default: the model's, else timm; class names decide first.",
        **one_of(ORDERS),
    ),
]
ClassesFrom = Annotated[
    Path | None,
    option(
        "With --data, for features: an .npz file of text embeddings and names, which are the classes (zero-shot).",
        "--classes-from",
        metavar="FILE",
    ),
]
OUTPUT_HELP = (
    "logits; features: pooled, without the classifier; patches: a vector for each patch, (B,N,C); map: those on the "
    "grid, (B,C,H,W); auto: logits if there is a classifier, else features."
)
LAYERS_HELP = "With --output patches or map: the layers to give, from 0: 2,5,8,11 (default: the last)."
Output = Annotated[str, option(OUTPUT_HELP, show_default=True, **one_of(OUTPUTS))]
Layers = Annotated[Any, option(LAYERS_HELP, parser=values.layers, metavar="LAYERS")]
Workers = Annotated[int | None, option("Threads that read images (default: one per CPU).", min=1)]
Ray = Annotated[
    str | None,
    option(
        "Spread the work over the nodes of a Ray cluster: HOST:PORT of its head, or auto (docs/evaluating.md).",
        "--ray",
        metavar="ADDRESS",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.")]
Seed = Annotated[int | None, option("Seed of random weights (default: 0).")]

Method = Annotated[
    str, option(f"gtp or a baseline ({LISTED}).", names=_methods, show_default=True, rich_help_panel=METHOD_PANEL)
]


def _setting(text: str, names: Callable[[], Iterable[str]] | None = None, **given: Any) -> Any:
    return option(text, names=names, rich_help_panel=METHOD_PANEL, **given)


Preset = Annotated[
    str | None,
    _setting(f"Form of GTP: {' or '.join(PRESETS)}; paper is as published. Default: the recipe's.", lambda: PRESETS),
]
NumProp = Annotated[
    Any, _setting("Tokens removed in every layer, or one number per layer: 4,8,…", parser=values.num_prop, metavar="N")
]
Schedule = Annotated[
    str | None,
    _setting(
        f"In which layers tokens are removed: {KINDS}; then +aligned[:M].", parser=values.schedule, metavar="KIND"
    ),
]
Macs = Annotated[
    Any,
    _setting("MACs of the backbone for one image, instead of --num-prop: 3.4G.", parser=values.macs, metavar="MACS"),
]
Keep = Annotated[
    Any,
    _setting(
        "MACs as a share of the dense model's, instead of --num-prop: 0.74.", parser=values.share, metavar="SHARE"
    ),
]
Sparsity = Annotated[
    Any, _setting("Share of the attention map to keep, in (0, 1].", parser=values.share, metavar="SHARE")
]
Alpha = Annotated[
    float | None, _setting("Factor by which a removed token is added to its neighbours.", min=0, callback=values.finite)
]
NumNeighbours = Annotated[int | None, _setting("Number of semantic neighbours of a token.", min=1)]
TokenScale = Annotated[bool | None, _setting("Give tokens that received others more weight in attention.")]
Selection = Annotated[
    str | None, _setting(f"The score by which tokens are kept: MixedAttnMax, … ({LISTED}).", _axis("selection"))
]
Propagation = Annotated[
    str | None, _setting(f"What the kept tokens receive: GraphProp, … ({LISTED}).", _axis("propagation"))
]
Graph = Annotated[str | None, _setting(f"Which tokens are neighbours: Mixed, … ({LISTED}).", _axis("graph"))]
Threshold = Annotated[
    str | None,
    _setting(f"How the threshold of --sparsity is found: {' or '.join(THRESHOLDS)}.", lambda: THRESHOLDS),
]


def with_options(group: Callable[..., Any], place: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that are the parameters of a function.

    Args:
        group: is called with what the user gave for them before the command is.
        place: the command's argument that gets what ``group`` returns, whose place the options take; "" is none, the
            options stand at the end.
    """
    own = inspect.signature(group).parameters

    def mark(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            made = group(**{name: given.pop(name) for name in own})
            command(**given, **({place: made} if place else {}))

        taken = list(inspect.signature(command).parameters.values())
        index = [entry.name for entry in taken].index(place) if place else len(taken)
        added = [entry.replace(kind=inspect.Parameter.KEYWORD_ONLY) for entry in own.values()]
        before = [entry.replace(kind=inspect.Parameter.KEYWORD_ONLY) for entry in taken[:index]]
        after = taken[index + 1 :]
        run.__signature__ = inspect.Signature([*before, *added, *after])  # type: ignore[attr-defined]
        return run

    return mark
