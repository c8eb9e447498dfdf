"""timm's ``forward_intermediates`` on a patched model: tokens are put back behind each layer that is asked for."""

from collections.abc import Iterator
from typing import Any

from timm.models._features import feature_take_indices
from torch import Tensor

from gtp_models.errors import UnsupportedModelError
from gtp_models.frame.tokens import Tokens


class GridIntermediates:
    """Stands in for a timm model's ``forward_intermediates``, which ``get_intermediate_layers`` calls.

    Modifications:
    - runs the patched blocks; full grids come out, as from the model without a patch
    - tokens that leave and are not put back are refused; with an attention mask the blocks run unpatched
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, x: Tensor, indices: Any = None, *args: Any, **options: Any) -> Any:
        """Return what timm's method returns; arguments are timm's.

        Raises:
            UnsupportedModelError: tokens leave and are not put back.
        """
        model, blocks = self.model, self.model.blocks
        if options.get("attn_mask") is not None or options.get("is_causal"):
            return type(model).forward_intermediates(model, x, indices, *args, **options)
        if any(blocks.num_prop) and blocks.restore is None:
            raise UnsupportedModelError(
                "tokens leave this patched model, so its layers have no full grid: patch it with "
                "gtp_export.apply(model, settings, restore=True), or undo the patch with gtp_export.remove(model)"
            )
        taken = {*feature_take_indices(len(blocks), indices)[0], len(blocks) - 1}
        return type(model).forward_intermediates(_OnGrid(model, blocks, taken), x, indices, *args, **options)


class _OnGrid:
    """The model in one forward, with blocks that put their tokens back; everything else is the model's own."""

    def __init__(self, model: Any, patched: Any, taken: set[int]) -> None:
        self._model, self._patched, self._taken = model, patched, taken
        self._rope: Tensor | None = None
        self._states: Iterator[tuple[int, tuple[Tensor, Tokens]]] | None = None
        self.blocks = [self._block] * len(patched)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def _pos_embed(self, x: Tensor) -> Any:
        """Embed as the model does, and keep the rotary embeddings of all layers."""
        embedded = self._model._pos_embed(x)
        self._rope = embedded[1] if isinstance(embedded, tuple) else None
        return embedded

    def _block(self, x: Tensor, **_: Any) -> Tensor:
        """Run the next block on the tokens behind the one before; ``x`` counts only for the first."""
        if self._states is None:
            self._states = enumerate(self._patched.states(x, self._rope))
        index, (x, tokens) = next(self._states)
        return self._patched.handed_over(x, tokens) if index in self._taken else x
