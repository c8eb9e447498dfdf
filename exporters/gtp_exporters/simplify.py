"""Simplifies a graph with onnxsim and our own rules, and keeps the result only if it still answers the same."""

import numpy as np
import onnx

from gtp_exporters.rewriting import rewrite

TOLERANCE = 1e-4  # of max|output|
SEEDS = (0, 1, 2)


def simplify(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Return the simplified graph and "", or the graph as it was and the reason in words."""
    import onnxsim

    try:
        simplified, same = onnxsim.simplify(proto)
        if same:
            rewrite(simplified.graph)
        same = same and answers_agree(proto, simplified)
    except Exception as error:  # whatever the simplifier trips over, the graph is still good
        return proto, f"the simplifier failed ({_first_line(error)}): the graph was kept unsimplified"
    if not same:
        return proto, "the simplifier changed the outputs: the graph was kept unsimplified"
    return simplified, ""


def answers_agree(left: onnx.ModelProto, right: onnx.ModelProto) -> bool:
    """Whether ONNX Runtime gives the same answers for both on a seeded input.

    One of several images is enough: a near-tie may fall the other way under another order of sums, but a graph
    that computes something else differs on all.
    """
    if [output.name for output in left.graph.output] != [output.name for output in right.graph.output]:
        return False
    return any(_agree(_answers(left, seed), _answers(right, seed)) for seed in SEEDS)


def _answers(proto: onnx.ModelProto, seed: int) -> list[np.ndarray]:
    """Run in a session of its own: two at a time would hold the weights and all activations twice."""
    session = _session(proto)
    given = session.get_inputs()[0]
    return list(session.run(None, {"images": _images(given.shape, given.type, seed)}))


def _agree(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    """Whether all outputs are close for at least one image of the batch."""
    return bool(np.all([_close(a, b) for a, b in zip(left, right, strict=True)], axis=0).any())


def _images(shape: list[int], kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "tensor(uint8)":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


def _session(proto: onnx.ModelProto):  # type: ignore[no-untyped-def]
    import onnxruntime

    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def _close(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return for each image whether an output is close."""
    off = np.abs(left - right).reshape(len(left), -1).max(1)
    return np.asarray(off <= TOLERANCE * max(1e-30, float(np.abs(left).max())))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
