"""Settings that all methods share, and what they say of a method's costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar

from gtp_models.errors import ConfigError

DEFAULT_NUM_PROP = 8
S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class ModelShape:
    """The properties of a model that a method may use.

    Attributes:
        grid: (rows, columns) of patches.
        num_prefix: prefix tokens (class, distillation, registers).
        has_class_token: whether the first prefix token is a class token.
        dim: channels of a token.
        heads: attention heads of each layer.
        head_dim: channels of a head.
    """

    grid: tuple[int, int]
    num_prefix: int
    has_class_token: bool
    dim: int
    heads: tuple[int, ...]
    head_dim: int

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.heads)

    @property
    def patches(self) -> int:
        """Image tokens at the start."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class LayerShape:
    """The properties of a layer that reduces: tokens that attend (prefix included), and how many leave."""

    model: ModelShape
    tokens: int
    num_prop: int


@dataclass(frozen=True)
class Settings:
    """Settings of a method: the number of tokens to remove in each layer. Methods add their own.

    Give one of ``num_prop``, ``keep`` and ``macs`` (default: ``num_prop`` 8).

    Attributes:
        num_prop: tokens to remove in every layer, or one number per layer; 0 keeps all tokens of a layer.
        keep: MACs of the backbone as a share of the dense model's, in (0, 1].
        macs: MACs of the backbone for one image.
        schedule: in which layers tokens are removed (``gtp_models.schedules``; default with ``keep`` or ``macs``:
            "even").

    Raises:
        ConfigError: an invalid value; the message says why and what is allowed.
    """

    num_prop: int | tuple[int, ...] | None = None
    keep: float | None = field(default=None, kw_only=True)
    macs: float | None = field(default=None, kw_only=True)
    schedule: str | None = field(default=None, kw_only=True)

    name: ClassVar[str]  # the method's
    summary: ClassVar[str]  # one line for users

    def __post_init__(self) -> None:
        amounts = [name for name in ("num_prop", "keep", "macs") if getattr(self, name) is not None]
        if len(amounts) > 1:
            raise ConfigError(f"{' and '.join(amounts)} are alternatives: give one")
        if not amounts:
            object.__setattr__(self, "num_prop", DEFAULT_NUM_PROP)
        if self.num_prop is not None:
            object.__setattr__(self, "num_prop", _amounts(self.num_prop))
        if self.keep is not None and not (is_number(self.keep) and 0 < self.keep <= 1):
            raise ConfigError(f"keep={self.keep!r}: give a share of the dense model's MACs in (0, 1]")
        if self.macs is not None and not (is_number(self.macs) and 1 < self.macs < float("inf")):
            raise ConfigError(f"macs={self.macs!r}: give a number of MACs above 1 (3.4e9); for a share use keep")
        for name in ("keep", "macs"):  # numpy's become Python's
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))

    def resolved(self: S, num_prop: tuple[int, ...]) -> S:
        """Return the settings with ``num_prop`` for each layer, without ``keep``, ``macs`` and ``schedule``."""
        if isinstance(self.num_prop, int) and set(num_prop) == {self.num_prop}:
            return replace(self, schedule=None)
        return replace(self, num_prop=num_prop, keep=None, macs=None, schedule=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the given settings as JSON values."""
        return {name: _plain(value) for name, value in asdict(self).items() if value is not None}

    def described(self) -> dict[str, Any]:
        """Return the given settings for people, as JSON values; a method may add what sums them up."""
        return self.to_dict()

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the names of the settings."""
        return [entry.name for entry in fields(cls)]

    def check(self, shape: ModelShape) -> None:
        """Raise ``ConfigError`` where the settings do not fit a model. Nothing to check, by default."""

    @property
    def joins(self) -> int:
        """New tokens in a layer that reduces."""
        return 0

    @property
    def merges(self) -> bool:
        """Whether a token may then stand for several patches, so that pooling weighs tokens by size."""
        return False

    @property
    def needs_calibration(self) -> bool:
        """Whether the settings need a calibration on images (``gtp_models.calibrate``)."""
        return False

    def uncalibrated(self: S) -> S:
        """Return settings like these that need no calibration, which itself needs the layers: to fit a schedule by."""
        return self

    def unused(self) -> dict[str, str]:
        """Return the settings that have no effect beside the others, and for each the reason."""
        return {}

    def most(self, tokens: int, num_prefix: int) -> int:  # noqa: ARG002
        """Return how many of a layer's image tokens may leave at most."""
        return tokens - 1

    def layer_macs(self, layer: LayerShape) -> int:  # noqa: ARG002
        """Return the MACs of the method itself in a layer that reduces."""
        return 0

    def setup_macs(self, shape: ModelShape) -> int:  # noqa: ARG002
        """Return the MACs of the method before the first layer."""
        return 0

    def topk(self, layer: LayerShape) -> int:
        """Return the largest k that the method's graph sorts in a layer: by default it ranks all tokens."""
        return layer.tokens

    def topk_remedy(self, layer: LayerShape, limit: int) -> str:  # noqa: ARG002
        """Return what to change so that ``topk`` is within a limit."""
        return f"give a smaller --img-size, for at most {limit} tokens"


def is_int(value: object) -> bool:
    """Whether a value is a whole number (numpy's count); True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a real number (numpy's count); True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _amounts(num_prop: Any) -> int | tuple[int, ...]:
    several = isinstance(num_prop, Sequence) and not isinstance(num_prop, str)
    amounts = tuple(num_prop) if several else (num_prop,)
    if not amounts or not all(is_int(amount) and amount >= 0 for amount in amounts):
        raise ConfigError(f"num_prop={num_prop!r}: give a whole number of tokens from 0, or one for each layer (4,8,…)")
    whole = tuple(int(amount) for amount in amounts)
    return whole if several else whole[0]


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, tuple) else value
