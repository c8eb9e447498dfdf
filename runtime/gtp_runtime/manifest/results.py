"""What is read of a manifest's ``results``, by kind. Those of another version, or damaged, are left out."""

from typing import Annotated, Any, TypedDict

from msgspec import Meta, ValidationError, convert


class PlacementResult(TypedDict):
    """Where operators ran; see ``gtp_runtime.placement.Placement``."""

    nodes: dict[str, int]
    fell_back: dict[str, int]


class Measured(TypedDict, total=False):
    """On what a result was measured; see ``gtp_runtime.latency.measured_by``."""

    device: str
    placement: PlacementResult


class ConditionsResult(TypedDict):
    """What a device did while files were timed; see ``gtp_runtime.sensors.Conditions``."""

    celsius: dict[str, float]
    mhz: dict[str, tuple[float, float]]
    problems: list[str]
    missing: list[str]


class Watched(Measured, total=False):
    """What was read beside the times."""

    conditions: ConditionsResult | None
    joules: float | None


class LatencyResult(Watched):
    """What is read of ``results.latency``; see ``gtp_runtime.latency.Latency``."""

    batch: int
    runs: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    throughput: float
    ratio: float
    quantiles_ms: Annotated[list[float], Meta(min_length=21, max_length=21)] | None


class ParityResult(Measured):
    """What is read of ``results.parity``; see ``gtp_runtime.parity.Parity``."""

    ok: bool
    images: int
    problems: list[str]
    top1: float | None
    dense_top1: float | None
    top1_agreement: float | None
    kept_agreement: float | None
    max_abs_fraction_all: float | None
    cosine: float | None


class AccuracyResult(TypedDict):
    """What is read of ``results.accuracy``; see ``gtp_runtime.accuracy.Accuracy``."""

    images: int
    data: str
    unreadable: int
    top1: float | None
    top1_se: float | None
    top5: float | None
    dense_top1: float | None
    top1_drop: float | None
    top1_drop_se: float | None
    agreement: float | None
    divergence: float | None


class GateResult(TypedDict):
    """What is read of ``results.quantization``; see ``gtp_exporters.measuring.gate.GateReport``."""

    ok: bool
    images: int


class FailedGate(TypedDict):
    """What is read of ``results.quantization_failed``."""

    problems: list[str]


RESULTS: dict[str, Any] = {
    "latency": LatencyResult,
    "parity": ParityResult,
    "accuracy": AccuracyResult,
    "quantization": GateResult,
    "quantization_failed": FailedGate,
}


def is_whole(result: Any, kind: str) -> bool:
    """Whether a result of a kind holds all that ``RESULTS`` names."""
    try:
        convert(result, RESULTS[kind])
    except ValidationError:
        return False
    return True
