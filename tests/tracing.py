"""Exports made cheaper for tests: what torch makes anew for each trace, and traces of the same model, are made once.

Timing is short too: tests assert what is timed, not how long it takes.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import pytest
from torch import nn

from gtp_exporters.graph.trace import Traced, to_onnx

LARGEST = 1 << 20  # values of a model whose trace is kept
Trace = tuple[ir.Model, dict[str, int | None]]
SHORT = {  # seconds of timing in an export's proof, in a choice, in a grid, in a search for float layers, to warm up
    "gtp_exporters.proof.SECONDS": 0.05,
    "gtp_exporters.measuring.choice.SECONDS": 0.1,
    "gtp_exporters.measuring.latency.SECONDS": 0.02,
    "gtp_exporters.quantizing.search.SECONDS": 0.1,
    "gtp_runtime.latency.WARMUP_SECONDS": 2.0**-7,
}
_traces: dict[str, Trace] = {}


@pytest.fixture(scope="session", autouse=True)
def _timing_is_short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in SHORT.items():
            patch.setattr(name, seconds)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_table_of_translations() -> Iterator[None]:
    """torch reads the source of all its translations to ONNX for each trace, a quarter of a small one's time."""
    from torch.onnx._internal.exporter import _registration

    registry: Any = getattr(_registration, "ONNXRegistry", None)
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(registry, "from_torchlib"):
            patch.setattr(registry, "from_torchlib", staticmethod(_copies(registry, registry.from_torchlib)))
        yield


def _copies(registry: Any, make: Any) -> Any:
    tables: dict[Any, Any] = {}

    def copied(*arguments: Any, **options: Any) -> Any:
        key = (arguments, tuple(options.items()))
        if key not in tables:
            tables[key] = make(*arguments, **options)
        copy = registry()
        vars(copy).update(vars(tables[key]))
        copy.functions = {name: list(entries) for name, entries in tables[key].functions.items()}
        return copy

    return copied


@pytest.fixture(scope="session", autouse=True)
def _each_small_model_is_traced_once() -> Iterator[None]:
    """An export of a model that an earlier test exported in the same way takes the graph of that trace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gtp_exporters.artifacts.to_onnx", _remembered)
        yield


def _remembered(traced: Traced, batch: int, opset: int) -> Trace:
    if sum(tensor.numel() for tensor in traced.state_dict().values()) > LARGEST:
        return to_onnx(traced, batch, opset)
    key = _key(traced, batch, opset)
    if key not in _traces:
        _traces[key] = to_onnx(traced, batch, opset)
    graph, layers = _traces[key]
    return graph.clone(), dict(layers)


def _key(traced: Traced, batch: int, opset: int) -> str:
    """Return a digest of all that a trace depends on: modules, their plain attributes, weights, in- and outputs."""
    digest = hashlib.sha256(repr((batch, opset, traced, traced.output_names)).encode())
    for name, module in traced.named_modules():
        digest.update(repr((name, type(module), _plain(module))).encode())
    for name, tensor in traced.state_dict().items():
        digest.update(name.encode() + tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _plain(module: nn.Module) -> list[tuple[str, str]]:
    return sorted(
        (name, str(value))
        for name, value in vars(module).items()
        if not isinstance(value, dict) and "0x" not in str(value)
    )
