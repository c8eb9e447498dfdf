"""The methods that reduce tokens, and the baselines to measure them against.

A method is a class of settings (``gtp_models.methods.settings.Settings``), which knows the method's name and MACs, and
the blocks that do the work. ``METHODS`` finds both by the name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gtp_models.errors import ConfigError
from gtp_models.methods.settings import Settings
from gtp_runtime.registry import Registry

if TYPE_CHECKING:
    from gtp_models.frame.blocks import ReducingBlocks
    from gtp_models.frame.families.forms import Blocks
    from gtp_models.plan import Plan


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        settings: the class of its settings.
        blocks: from timm's blocks and a plan, made from such settings, to the blocks with the method in them.
    """

    settings: type[Settings]
    blocks: "Callable[[Blocks, Plan], ReducingBlocks]"

    @property
    def name(self) -> str:
        """The value of ``--method``."""
        return self.settings.name

    @property
    def summary(self) -> str:
        """One line for users."""
        return self.settings.summary


METHODS: Registry[Method] = Registry(
    "method",
    ConfigError,
    modules={
        "dense": "gtp_models.methods.baselines",
        "drop": "gtp_models.methods.baselines",
        "gtp": "gtp_models.methods.gtp.blocks",
        "tome": "gtp_models.methods.tome",
    },
)


def make_settings(method: str, **values: Any) -> Settings:
    """Return a method's settings.

    Args:
        method: a name in ``METHODS``.
        values: settings by name.

    Raises:
        ConfigError: an unknown method, a setting that it does not take, or a value that is not allowed.
    """
    kind = METHODS[method].settings
    check_names(kind, values)
    return kind(**values)


def check_names(kind: type[Settings], values: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` where a method does not take a setting."""
    unknown = [name for name in values if name not in kind.option_names()]
    if unknown:
        raise ConfigError(f"{kind.name} takes no {', '.join(unknown)}: it takes {', '.join(kind.option_names())}")
