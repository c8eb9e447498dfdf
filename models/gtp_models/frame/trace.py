"""Records which tokens are kept and removed in each layer, for parity and inspection."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gtp_models.frame.tokens import Tokens


@dataclass(frozen=True)
class Step:
    """The kept and removed tokens of one layer; (B, ...) CPU tensors. Ids start at 0, the first patch.

    Attributes:
        kept: original ids of the image tokens after the layer, in their current order.
        propagated: original ids of the removed tokens, highest score first.
        gap: lowest score of a kept token minus highest score of a removed token; infinite if none was removed.
        received_by: for each entry of ``propagated``, the original id of the token that it was merged into; None if
            tokens have no single receiver.
    """

    kept: Int[Tensor, "batch kept"]
    propagated: Int[Tensor, "batch left"]
    gap: Float[Tensor, " batch"]
    received_by: Int[Tensor, "batch left"] | None = None


@dataclass(frozen=True)
class Layer:
    """A layer as the forward computed it, for recorders.

    Attributes:
        tokens: those that stay.
        left: ids of those that left, as in ``tokens.ids``; None if none left.
        gap: as in ``Step``.
        receivers: ids of the tokens that they were merged into; None without a single receiver.
    """

    tokens: Tokens
    left: Int[Tensor, "*batch left"] | None = None
    gap: Float[Tensor, "*batch"] | None = None
    receivers: Int[Tensor, "*batch left"] | None = None


def describe(layer: Layer) -> Step:
    """Turn a recorded layer into a ``Step``."""
    kept, batch = layer.tokens.image_ids().cpu(), layer.tokens.batch
    if layer.left is None or layer.gap is None:
        return Step(kept, kept[:, :0], torch.full((batch,), torch.inf))
    gap = layer.gap.detach().reshape(batch).cpu()
    left, receivers = (_image_ids(ids, layer.tokens) for ids in (layer.left, layer.receivers))
    assert left is not None
    return Step(kept, left, gap, receivers)


def _image_ids(ids: Tensor | None, tokens: Tokens) -> Tensor | None:
    return None if ids is None else (ids.reshape(tokens.batch, -1) - tokens.num_prefix).cpu()


T = TypeVar("T")
_Recorder = tuple[nn.Module, Callable[[Layer], Any], list[Any]]
_recorders: ContextVar[tuple[_Recorder, ...]] = ContextVar("recorders", default=())


@contextmanager
def recording(blocks: nn.Module, keep: Callable[[Layer], T]) -> Iterator[list[T]]:
    """Collect the layers of the latest forward of ``blocks`` in this thread, each passed through ``keep``."""
    layers: list[T] = []
    token = _recorders.set((*_recorders.get(), (blocks, keep, layers)))
    try:
        yield layers
    finally:
        _recorders.reset(token)


def start(blocks: nn.Module) -> None:
    """Start a new forward: clear what recorders of these blocks hold."""
    for recorded, _, into in _recorders.get():
        if recorded is blocks:
            into.clear()


def record(blocks: nn.Module, layer: Layer) -> None:
    """Pass a layer of the forward to the recorders of these blocks."""
    for recorded, keep, into in _recorders.get():
        if recorded is blocks:
            into.append(keep(layer))
