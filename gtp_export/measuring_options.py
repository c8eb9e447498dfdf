"""Options that compare and tune share: the model's weights, images and their classes, and where latency is measured."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from gtp_export.model_options import ModelOptions
from gtp_export.options import (
    Batch,
    ClassesFrom,
    ClassOrder,
    ImageSize,
    Labels,
    Layers,
    Output,
    Ray,
    Weights,
    check_class_order,
    check_names,
    option,
    with_options,
)
from gtp_export.running import Provider, Threads
from gtp_runtime.messages import option_words

if TYPE_CHECKING:
    from gtp_models import Recipe


@dataclass(frozen=True)
class MeasuringOptions:
    """What the user gave of the options below."""

    data: Path | None
    labels: Path | None
    class_order: str | None
    calib_data: Path | None
    weights: str
    img_size: tuple[int, int] | None
    batch: int
    ray: str | None
    threads: int | None
    provider: str | None
    output: str
    layers: tuple[int, ...]
    classes_from: Path | None

    @property
    def asked(self) -> dict[str, Any]:
        """What the model gives and what is measured of it, as ``CompareOptions`` and ``TuneOptions`` take it."""
        return {"output": self.output, "layers": self.layers, "classes_from": self.classes_from}

    @property
    def output_words(self) -> list[str]:
        """What the model gives, as ``export`` takes it."""
        layers = ",".join(map(str, self.layers)) or None
        return option_words(output=None if self.output == "auto" else self.output, layers=layers)

    def check(self, model: str) -> None:
        """Refuse what cannot be, before torch is loaded.

        Raises:
            BadParameter: options that exclude each other.
            ModelsError: no such model.
        """
        check_class_order(self.data, self.labels, self.class_order)
        check_names(model)

    def recipe(self, model: str, options: ModelOptions) -> "Recipe":
        """Return the recipe of MODEL with all that the user gave. Raises as ``ModelOptions.changed``."""
        from gtp_models import load_recipe

        return self._ordered(options).changed(load_recipe(model, self.img_size), self.weights)

    def words(self, model: str, options: ModelOptions, seed: int | None) -> list[str]:
        """Return MODEL and these options as ``export`` takes them; ``seed`` is that of random weights."""
        weights = None if self.weights == "pretrained" else self.weights
        seed = seed if weights in ("random", "auto") else None
        own = option_words(weights=weights, seed=seed or None, img_size=self.img_size, batch=self.other_batch)
        return [model, *own, *self.output_words, *self._ordered(options).words]

    @property
    def other_batch(self) -> int | None:
        """Images per run; None for one."""
        return None if self.batch == 1 else self.batch

    def _ordered(self, options: ModelOptions) -> ModelOptions:
        return replace(options, class_order=self.class_order)


def takes_measuring_options() -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options below; it gets its ``MeasuringOptions`` as ``measuring``."""

    def measuring_options(
        data: Annotated[
            Path | None, option("Images, one sub-folder per class where known (default: the recipe's own).", "--data")
        ] = None,
        labels: Labels = None,
        class_order: ClassOrder = None,
        calib_data: Annotated[
            Path | None,
            option(
                "Training images that schedules are fitted on, and int8 and thresholds calibrated on (default: the "
                "recipe's own)."
            ),
        ] = None,
        weights: Weights = "pretrained",
        img_size: ImageSize = None,
        batch: Batch = 1,
        ray: Ray = None,
        threads: Threads = None,
        provider: Provider = None,
        output: Output = "auto",
        layers: Layers = None,
        classes_from: ClassesFrom = None,
    ) -> MeasuringOptions:
        asked = (output, layers or (), classes_from)
        images = (data, labels, class_order, calib_data)
        return MeasuringOptions(*images, weights, img_size, batch, ray, threads, provider, *asked)

    return with_options(measuring_options, "measuring")
