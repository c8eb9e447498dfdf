"""Folds the constants of a graph: those that torch's exporter leaves, and those computed from weights alone."""

import onnx_ir as ir
from onnx_ir.passes import common as passes

from gtp_exporters.graphs import LARGE, without_unused

ANY_SIZE = 1 << 62


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
