"""Simplifies a graph with onnxsim and our own rules, and keeps the result only if its outputs are the same."""

import onnx_ir as ir

from gtp_exporters.agreement import Known, answers, compare
from gtp_exporters.errors import SimplifyError
from gtp_exporters.folding import fold_weights
from gtp_exporters.graphs import restore, skeleton
from gtp_exporters.rewriting import rewrite
from gtp_runtime.errors import first_line


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

    proto, weights = skeleton(fold_weights(model))
    try:
        simplified, same = onnxsim.simplify(proto)
    except Exception as error:  # whatever onnxsim trips over, the graph is still good
        return model, f"the simplifier failed ({first_line(error)}): the graph was kept unsimplified"
    if not same:
        return model, "the simplifier changed the graph's interface: the graph was kept unsimplified"
    return _checked(model, restore(simplified, weights), known)


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
