"""What a model gives: the answers of a classifier, a projection into an embedding space, features, or every patch."""

from dataclasses import replace
from typing import Any, Literal, get_args

from gtp_models.errors import ConfigError
from gtp_models.recipes import Recipe

Output = Literal["auto", "logits", "features", "patches", "map"]
OUTPUTS: tuple[str, ...] = get_args(Output)
DENSE = ("patches", "map")  # a vector for each patch
HEADLESS = ("features", *DENSE)
_CLIP = {"clip", "mci", "core"}  # parts of timm's names of CLIP's, MobileCLIP's and PE-Core's image towers
_DIMENSIONS = range(256, 2049)  # of the space that images and texts share


def without_head(recipe: Recipe) -> Recipe:
    """Return a recipe whose model ends after pooling (timm's ``num_classes=0``)."""
    return replace(recipe, model_args=recipe.model_args | {"num_classes": 0}, labels=None, activation=None)


def gives_features(model: Any, name: str, output: str = "auto", projection: bool = False) -> tuple[bool, str]:
    """Return whether a timm model's output is features, pooled or of each patch, and a note if nobody asked for them.

    Args:
        model: as it will be exported.
        name: timm's.
        output: one of ``OUTPUTS``, as requested.
        projection: whether the head is known to be a projection into a space of embeddings.

    Raises:
        ConfigError: no head to keep, or tokens that are not pooled.
    """
    if output in DENSE:
        return True, ""
    _check_pooled(model)
    if not model.num_classes:
        if output == "logits":
            raise ConfigError(f"{name} has no classifier that gives logits: omit --output to get its features")
        note = f"{name} has no classifier: its output is features ({model.num_features} values per image)"
        return True, note if output == "auto" else ""
    if not projection and not projects(model, name):
        return False, ""
    return True, (
        f"the head of {name} is a projection into {model.num_classes} dimensions shared by images and texts, not a "
        "classifier: its output is features (--output features: those before the projection)"
    )


def projects(model: Any, name: str) -> bool:
    """Whether the head is CLIP's projection, which timm counts as classes."""
    if model.num_classes == 1000 or model.num_classes not in _DIMENSIONS:
        return False
    import timm

    config = timm.get_pretrained_cfg(name)
    named = bool(_CLIP & set(name.partition(".")[0].split("_")))
    return named and config is not None and model.num_classes == config.num_classes


def _check_pooled(model: Any) -> None:
    if getattr(model, "global_pool", None) == "" and getattr(model, "attn_pool", None) is None:
        raise ConfigError(
            "global_pool='' outputs all kept tokens, in an order that differs between images: pool them "
            "(in a recipe file model_args: {global_pool: avg}, or token), or run the patched model in PyTorch"
        )
