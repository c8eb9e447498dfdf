"""Errors about a model, its settings or its weights. Every message says what to do."""

import difflib
from collections.abc import Sequence

from gtp_runtime.errors import MISSING, USAGE, GTPError


class ModelsError(GTPError):
    """Base of the errors that ``gtp_models`` raises on purpose."""


class ConfigError(ModelsError, ValueError):
    """An invalid setting, by itself or for the model."""

    exit_code = USAGE


class UnsupportedModelError(ModelsError, TypeError):
    """A model, block or attention class that cannot be patched."""

    exit_code = USAGE


class UnknownModelError(ModelsError, KeyError):
    """A name that is neither a recipe, a recipe file nor a timm model."""

    exit_code = USAGE

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0])


class WeightsError(ModelsError, ValueError):
    """A weights file that cannot be read or does not fit the model."""

    exit_code = USAGE


class WeightsUnavailableError(ModelsError):
    """Weights that are not available: a missing file, or a model without weights on the hub."""

    exit_code = MISSING


class HubUnreachableError(WeightsUnavailableError):
    """Pretrained weights on a hub that cannot be reached."""


def closest(name: str, names: Sequence[str]) -> str:
    """Return what to say about a wrong name: the names that begin with it or look like it, else what there is."""
    longer = sorted((other for other in names if name and other.startswith(name)), key=len)
    matches = longer[:3] or difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if matches:
        return f"did you mean {' or '.join(matches)}?"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"there are {', '.join(names[:20])}{more}"
