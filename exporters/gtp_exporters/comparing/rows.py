"""What a comparison finds: one row for each case and run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gtp_exporters.comparing.cases import Skipped

FORMAT = "gtp-export comparison 1"


@dataclass(frozen=True)
class Row:
    """A method at a budget, on a backend in a precision. Shares are in 0..1; unknown values are None.

    Attributes:
        method: its name; "dense" is the dense model.
        budget: what it may spend: {"keep": 0.75} or {"num_prop": 8}; empty for the dense model.
        backend, precision: how it runs.
        num_prop: tokens removed in each layer.
        settings: settings of the method.
        command: options of ``gtp-export export`` that give these settings.
        macs: multiply-accumulates of the backbone for one image.
        macs_ratio: these over the dense model's.
        images: how many were measured; ``unreadable`` more could not be read.
        top1, top1_se, top5: accuracy, and the standard error of ``top1``; None without classes.
        top1_drop, top1_drop_se: how far ``top1`` is below the dense fp32 model's on the same backend, and the standard
            error of the paired differences.
        agreement: share of images with that model's predicted class.
        divergence, divergence_se: mean Kullback-Leibler divergence of that model's to these class probabilities, nats.
        p50_ms: median latency in milliseconds, in the round with the median ratio.
        ratio: p50 over that of the dense fp32 model in the same runs.
        share: share of the saved MACs that becomes saved time, against the dense model of the same precision.
        file_bytes: size of the graph with its weights.
        peak_mib, cold_start_ms: as in ``gtp_runtime.Footprint``.
        front: whether no row of this backend is both faster and closer to the dense model.
        published: published top-1 of these settings, in percent.
    """

    method: str
    budget: dict[str, Any]
    backend: str
    precision: str
    num_prop: list[int]
    settings: dict[str, Any]
    command: list[str]
    macs: int
    macs_ratio: float
    images: int
    unreadable: int
    top1: float | None
    top1_se: float | None
    top5: float | None
    top1_drop: float | None
    top1_drop_se: float | None
    agreement: float
    divergence: float
    divergence_se: float | None
    p50_ms: float
    ratio: float
    share: float | None
    file_bytes: int
    peak_mib: float | None = None
    cold_start_ms: float | None = None
    front: bool = False
    published: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All rows, and what they depend on.

    Attributes:
        model, title, timm: the recipe's names.
        weights: where the weights come from.
        data: name of the folder of images.
        images: how many were measured; ``unreadable`` more could not be read.
        batch: images per run.
        seconds, rounds: of timing, as in ``CompareOptions``.
        options: options of each backend.
        tools: versions of packages.
        rows: the dense model first, then by budget and method.
        skipped: what could not be compared.
        sources: of the published figures, by what they are of.
    """

    model: str
    title: str
    timm: str
    weights: str
    data: str
    images: int
    unreadable: int
    batch: int
    seconds: float
    rounds: int
    options: dict[str, dict[str, Any]]
    tools: dict[str, str]
    rows: list[Row]
    skipped: list[Skipped] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    format: str = FORMAT

    @property
    def has_classes(self) -> bool:
        """Whether the classes of the images are known."""
        return all(row.top1 is not None for row in self.rows)

    def runs(self) -> list[tuple[str, str]]:
        """Return backend and precision of every table."""
        return list(dict.fromkeys((row.backend, row.precision) for row in self.rows))

    def of(self, backend: str, precision: str) -> list[Row]:
        """Return the rows of a table."""
        return [row for row in self.rows if (row.backend, row.precision) == (backend, precision)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def with_front(rows: Sequence[Row]) -> list[Row]:
    """Mark the rows that no other row of the same backend beats in both latency and divergence."""
    return [replace(row, front=not any(_beats(other, row) for other in rows)) for row in rows]


def _beats(other: Row, row: Row) -> bool:
    if other.backend != row.backend:
        return False
    pairs = ((other.ratio, row.ratio), (other.divergence, row.divergence))
    return all(one <= two for one, two in pairs) and any(one < two for one, two in pairs)
