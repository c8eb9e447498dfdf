"""Options that compare and tune share: the model's weights, images and their classes, and where latency is measured."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from gtp_export.model_options import ModelOptions
from gtp_export.options import (
    Batch,
    ClassOrder,
    ImageSize,
    Labels,
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
        return [model, *own, *self._ordered(options).words]

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
    ) -> MeasuringOptions:
        return MeasuringOptions(data, labels, class_order, calib_data, weights, img_size, batch, ray, threads, provider)

    return with_options(measuring_options, "measuring")
