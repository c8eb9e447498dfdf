"""Options that say how MODEL's weights are read and what its classes are: changes to its recipe."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export.options import one_of, option, with_options
from gtp_export.values import image_size
from gtp_models.recipes.reading import ACTIVATIONS
from gtp_runtime.messages import option_words

if TYPE_CHECKING:
    from gtp_models import Recipe

PANEL = "The model's weights and classes"
NAMES_HELP = (
    "Class names: a file with one a line, a JSON list or table (id2label, class_to_idx), or imagenet-1k (default: the "
    "recipe's; for timm's ImageNet weights, ImageNet's)."
)


@dataclass(frozen=True)
class ModelOptions:
    """What the user gave; None and the defaults change nothing.

    Attributes:
        ema: take averaged weights where the file has them.
        random_head: accept a random classifier.
        num_classes: classes of the classifier.
        class_names: a file, or "imagenet-1k".
        activation: "softmax" or "sigmoid".
        weights_img_size: (height, width) in pixels that the weights file was trained with.
        class_order: "timm" or "torchvision"; of the class folders of its training.
    """

    ema: bool = True
    random_head: bool = False
    num_classes: int | None = None
    class_names: str | None = None
    activation: str | None = None
    weights_img_size: tuple[int, int] | None = None
    class_order: str | None = None

    def changed(self, recipe: "Recipe", weights: str) -> "Recipe":
        """Return the recipe with these options.

        Args:
            recipe: of MODEL.
            weights: the value of ``--weights``.

        Raises:
            BadParameter: an option that has no effect on these weights.
            ConfigError: no class names in their file.
        """
        self._check(recipe, weights)
        changes: dict[str, Any] = {}
        if not self.ema:
            changes["ema"] = False
        if self.random_head:
            changes["random_head"] = True
        if self.num_classes is not None:
            changes["model_args"] = recipe.model_args | {"num_classes": self.num_classes}
        if self.activation is not None:
            changes["activation"] = self.activation
        if self.weights_img_size is not None:
            changes["weights_img_size"] = self.weights_img_size
        if self.class_order is not None:
            changes["class_order"] = self.class_order
        if self.class_names is not None:
            from gtp_models.class_names import read_class_names

            changes["labels"] = read_class_names(self.class_names)
        return replace(recipe, **changes)

    def _check(self, recipe: "Recipe", weights: str) -> None:
        reads_file = weights not in ("pretrained", "random") or (weights == "pretrained" and recipe.weights is not None)
        reads_file = reads_file and not Path(recipe.weights or "" if weights == "pretrained" else weights).is_dir()
        for name, value in (("--no-ema", not self.ema), ("--weights-img-size", self.weights_img_size)):
            if value and not reads_file:
                raise typer.BadParameter(f"{name} has no effect with --weights {weights}: it is for a weights file")
        if self.random_head and (weights not in ("pretrained", "auto") or recipe.weights is not None):
            raise typer.BadParameter("--random-head has no effect here: it is for timm's pretrained weights")

    @property
    def words(self) -> list[str]:
        """The options as they are typed."""
        given = {name: value for name, value in vars(self).items() if name != "ema"}
        return option_words(no_ema=not self.ema, **given)


def takes_model_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that names a MODEL the options below; it gets its ``ModelOptions`` as ``model_options``.

    Args:
        names: further names of ``--class-names``.
    """

    def model_options(
        num_classes: Annotated[
            int | None,
            option("Classes of the classifier (default: the file's).", min=1, rich_help_panel=PANEL),
        ] = None,
        class_names: Annotated[
            str | None, option(NAMES_HELP, *names, "--class-names", metavar="FILE", rich_help_panel=PANEL)
        ] = None,
        activation: Annotated[
            str | None,
            option(
                "Of the logits: softmax (one class an image), or sigmoid (each class by itself; always for one logit).",
                rich_help_panel=PANEL,
                **one_of(ACTIVATIONS),
            ),
        ] = None,
        ema: Annotated[
            bool,
            option("Take a file's averaged (EMA) weights where it has them.", "--ema/--no-ema", rich_help_panel=PANEL),
        ] = True,
        random_head: Annotated[
            bool,
            option("Accept that the classifier is random.", "--random-head", rich_help_panel=PANEL),
        ] = False,
        weights_img_size: Annotated[
            Any,
            option(
                "Image size that the weights file was trained with: 224, or HEIGHTxWIDTH.",
                parser=image_size,
                metavar="SIZE",
                rich_help_panel=PANEL,
            ),
        ] = None,
    ) -> ModelOptions:
        return ModelOptions(ema, random_head, num_classes, class_names, activation, weights_img_size)

    return with_options(model_options, "model_options")
