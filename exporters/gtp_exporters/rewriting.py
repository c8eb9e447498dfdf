"""Forms of a simplified graph that runtimes run faster; the numbers stay the same."""

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRuleClassBase, RewriteRuleSet

from gtp_exporters.graphs import without_unused


def rewrite(model: ir.Model) -> ir.Model:
    """Apply every rule here to a simplified float32 graph, in place, and return it."""
    for rules in RULES:
        rules.apply_to_model(model)
    return without_unused(model)


class SplitKeyTranspose(RewriteRuleClassBase):  # type: ignore[misc]
    """Transpose the keys in two steps: first heads before tokens, then tokens last.

    The simplifier joins the two into one. OpenVINO copies every entry for the joined one, but takes the second step
    into its product; ONNX Runtime takes both in either form.
    """

    def pattern(self, op: Any, left: Any, keys: Any) -> Any:
        return op.MatMul(left, op.Transpose(keys, _outputs=["turned"]))

    def check(self, context: Any, turned: ir.Value, **_: Any) -> bool:  # noqa: ARG002
        perm = _perm(turned)
        moves_tokens_last = perm[-2] == len(perm) - 1  # values do not
        return moves_tokens_last and _heads_first(perm) != list(range(len(perm)))

    def rewrite(self, op: Any, left: ir.Value, keys: ir.Value, turned: ir.Value) -> Any:
        perm = _perm(turned)
        last = [*range(len(perm) - 2), len(perm) - 1, len(perm) - 2]
        heads = op.Transpose(keys, perm=_heads_first(perm), _outputs=[f"{turned.name}_heads"])
        return op.MatMul(left, op.Transpose(heads, perm=last, _outputs=[turned.name]))


def _perm(turned: ir.Value) -> list[int]:
    producer = turned.producer()
    assert producer is not None
    return list(producer.attributes["perm"].as_ints())


def _heads_first(perm: list[int]) -> list[int]:
    return [*perm[:-2], perm[-1], perm[-2]]


class FoldScale(RewriteRuleClassBase):  # type: ignore[misc]
    """Scale the weights and the bias of a product in place of its result (layer scale, residual scaling).

    A scale is a constant for all channels, or one for each. Weights that another node uses stay as they are.
    """

    def __init__(self, product: str, scaling: str) -> None:
        super().__init__(f"{scaling} of {product}")
        self.product, self.scaling = product, scaling

    def pattern(self, op: Any, scale: Any) -> Any:
        product = getattr(op, self.product)(_allow_other_inputs=True, _outputs=["product"])
        return getattr(op, self.scaling)(product, scale)

    def check(self, context: Any, product: ir.Value, scale: ir.Value) -> bool:  # noqa: ARG002
        node = product.producer()
        assert node is not None
        weights = [value for value in node.inputs[1:] if value is not None]
        shape = weights[0].shape
        alone = len(weights[0].uses()) == 1  # a bias may be shared: it is small
        if not all(value.is_initializer() for value in weights) or not alone or shape is None:
            return False
        factor = _factor(scale)
        return factor is not None and len(shape) == 2 and factor.size in (1, shape[_channels(node)])

    def rewrite(self, op: Any, product: ir.Value, scale: ir.Value) -> Any:
        node, factor = product.producer(), _factor(scale)
        assert node is not None and factor is not None
        factor = 1 / factor if self.scaling == "Div" else factor
        weight, *bias = (value for value in node.inputs[1:] if value is not None)
        by_channel = factor[:, None] if _channels(node) == 0 else factor
        scaled = [_scaled(op, weight, by_channel, f"{weight.name}.scaled")]
        scaled += [_scaled(op, value, factor, f"{weight.name}.scaled_bias") for value in bias]
        return getattr(op, self.product)(node.inputs[0], *scaled, **node.attributes)


def _factor(scale: ir.Value) -> np.ndarray | None:
    """Return a scale as one float32 for all channels or one for each, (1,) or (channels,); None where it is neither."""
    if not scale.is_initializer() or scale.const_value is None or scale.dtype != ir.DataType.FLOAT:
        return None
    values = scale.const_value.numpy()
    return values.reshape(-1) if values.size == max(values.shape[-1:], default=1) else None


def _channels(node: ir.Node) -> int:
    """Return the axis of a product's weights that its channels are in."""
    turned = node.attributes.get("transB")
    return 0 if turned is not None and turned.as_int() else 1


def _scaled(op: Any, value: ir.Value, factor: np.ndarray, name: str) -> ir.Value:
    assert value.const_value is not None
    return op.initializer(ir.tensor(value.const_value.numpy() * factor, name=name), name=name)


_SCALES = [FoldScale.rule(product, scaling) for product in ("Gemm", "MatMul") for scaling in ("Mul", "Div")]
RULES = (RewriteRuleSet([SplitKeyTranspose.rule()]), RewriteRuleSet(_SCALES, commute=True))
