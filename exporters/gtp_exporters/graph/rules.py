"""Simplifies a graph: constants are folded, onnxsim runs, then our own rules, in forms that runtimes run faster.

The numbers stay the same, and the result is kept only if its outputs are. Each rule has a name, which the log shows
with how often it fitted.
"""

import logging
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript.rewriter import RewriteRuleClassBase, RewriteRuleSet

from gtp_exporters.agreement import Known, answers, compare
from gtp_exporters.errors import SimplifyError
from gtp_exporters.graph.files import LARGE, restore, skeleton, without_unused
from gtp_runtime.errors import first_line

log = logging.getLogger(__name__)
ANY_SIZE = 1 << 62


def simplify(model: ir.Model, known: Known | None = None) -> tuple[ir.Model, str]:
    """Simplify a graph.

    Args:
        model: as ``to_onnx`` returned it; it is not changed.
        known: what eager PyTorch answers. Where the simplified graph answers the same, the graph before is not run.

    Returns:
        The simplified graph, or the graph as it was where onnxsim fails; what people should know of it, or "".

    Raises:
        SimplifyError: our own rewriting changed the answers.
    """
    import onnxsim

    folded = fold_weights(model)
    proto, weights = skeleton(folded)
    try:
        simplified, same = onnxsim.simplify(proto)
    except Exception as error:  # whatever onnxsim trips over, the graph is still good
        return model, f"the simplifier failed ({first_line(error)}): the graph was kept unsimplified"
    if not same:
        return model, "the simplifier changed the graph's interface: the graph was kept unsimplified"
    graph = restore(simplified, weights)
    log.debug("onnxsim: %d nodes, %d before", len(graph.graph), len(folded.graph))
    return _checked(model, graph, known)


def _checked(model: ir.Model, simplified: ir.Model, known: Known | None) -> tuple[ir.Model, str]:
    rewritten = rewrite(simplified.clone())
    if known is not None and known.holds(rewritten):
        return rewritten, ""
    before = answers(model)
    agreement = compare(before, answers(rewritten))
    if agreement.ok:
        return rewritten, agreement.note
    if not compare(before, answers(simplified)).ok:
        return model, "the simplifier changed the outputs: the graph was kept unsimplified"
    raise SimplifyError("gtp-export's own rewriting changed the outputs: use --no-simplify, and report this model")


def tidy(model: ir.Model) -> ir.Model:
    """Fold constants and remove unused and duplicate nodes, in place, and return the graph.

    torch's exporter can do so itself (``optimize=True``), but it also matches dozens of fusion rules, twice. That takes
    a third of its time, and the simplifier finds the same graph without it.
    """
    from onnxscript.optimizer import fold_constants

    passes.InlinePass()(model)
    fold_constants(model, onnx_shape_inference=True)
    return ir.passes.Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    )(model).model


def fold_weights(model: ir.Model) -> ir.Model:
    """Return a copy in which what is computed from large weights alone is a weight itself.

    onnxsim does so for the weights it sees; it does not see the large ones.
    """
    from onnxscript.optimizer import fold_constants

    copy = model.clone()
    fold_constants(copy, input_size_limit=ANY_SIZE, output_size_limit=ANY_SIZE, should_fold=_reads_large_weights)
    return without_unused(copy)


def _reads_large_weights(node: ir.Node) -> bool:
    tensors = [value.const_value for value in node.inputs if value is not None]
    return all(tensor is not None for tensor in tensors) and any(
        tensor.nbytes >= LARGE for tensor in tensors if tensor is not None
    )


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


class KeepAxis(RewriteRuleClassBase):  # type: ignore[misc]
    """Where there are several images, reduce an axis to length 1, and squeeze it out in a step of its own.

    OpenVINO (2026.4, CPUs) adds a vector that follows a reduction within it. Where the axis is gone there, it adds
    other entries than those that belong: wrong scores.
    """

    def __init__(self, reduction: str) -> None:
        super().__init__(f"axis of {reduction}")
        self.reduction = reduction

    def pattern(self, op: Any, values: Any, axes: Any) -> Any:
        return getattr(op, self.reduction)(values, axes, keepdims=0, _outputs=["reduced"])

    def check(self, context: Any, values: ir.Value, axes: ir.Value, **_: Any) -> bool:  # noqa: ARG002
        node = values.producer()
        graph = None if node is None else node.graph
        shape = None if graph is None else graph.inputs[0].shape
        return axes.is_initializer() and shape is not None and shape[0] != 1

    def rewrite(self, op: Any, values: ir.Value, axes: ir.Value, reduced: ir.Value) -> Any:
        kept = getattr(op, self.reduction)(values, axes, keepdims=1, _outputs=[f"{reduced.name}_kept"])
        return op.Squeeze(kept, axes, _outputs=[reduced.name])


RULES = {
    "split the keys' transpose": RewriteRuleSet([SplitKeyTranspose.rule()]),
    **{
        f"keep the axis of {reduction}": RewriteRuleSet([KeepAxis.rule(reduction)])
        for reduction in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
    },
    **{
        f"fold {scaling} into {product}": RewriteRuleSet([FoldScale.rule(product, scaling)], commute=True)
        for product in ("Gemm", "MatMul")
        for scaling in ("Mul", "Div")
    },
}


def rewrite(model: ir.Model) -> ir.Model:
    """Apply every rule of ``RULES`` to a simplified float32 graph, in place, and return it."""
    for name, rule in RULES.items():
        log.debug("rule %s: %d times", name, rule.apply_to_model(model))
    return without_unused(model)
