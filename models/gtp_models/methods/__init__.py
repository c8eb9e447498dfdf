"""The methods that reduce tokens, and the baselines to measure them against: one file or folder a method.

A method is a class of settings (``gtp_models.methods.settings.Settings``) that knows its name, its own MACs and how to
put itself into timm's blocks. ``METHODS`` finds it by name, and ``apply`` by the class.
"""

from collections.abc import Mapping
from typing import Any

from gtp_models.errors import ConfigError
from gtp_models.methods.settings import Settings
from gtp_models.registry import Registry

METHODS: Registry[type[Settings]] = Registry(__name__, "method")


def make_settings(method: str, **values: Any) -> Settings:
    """Return a method's settings.

    Args:
        method: a name in ``METHODS``.
        values: settings by name.

    Raises:
        ConfigError: an unknown method, a setting that it does not take, or a value that is not allowed.
    """
    kind = METHODS[method]
    check_names(kind, values)
    return kind(**values)


def check_names(kind: type[Settings], values: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` where a method does not take a setting."""
    unknown = [name for name in values if name not in kind.option_names()]
    if unknown:
        raise ConfigError(f"{kind.name} takes no {', '.join(unknown)}: it takes {', '.join(kind.option_names())}")
