"""Proves an export on this device: by its parity pack, and by a latency budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtp_runtime.comparing import benchmark, record_latency
from gtp_runtime.errors import BudgetMissedError
from gtp_runtime.latency import Latency
from gtp_runtime.loading import load
from gtp_runtime.parity import Parity
from gtp_runtime.progress import Progress
from gtp_runtime.trust import Trust
from gtp_runtime.trust.verifying import lowest_version


@dataclass(frozen=True)
class Demands:
    """What an export must hold on this device.

    Attributes:
        budget_ms: the median of a run may not be above it; None for any.
        seconds: of timing.
        options: arguments of ``load``: the application's.
    """

    budget_ms: float | None
    seconds: float
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Proof:
    """What was measured on this device.

    Attributes:
        file: what ran, of the directory.
        backend: with which backend, and its ``info``.
        parity, latency: reports.
    """

    file: str
    backend: dict[str, Any]
    parity: Parity
    latency: Latency


def prove(directory: Path, demands: Demands, progress: Progress) -> Proof:
    """Load an export as the application does, compare it with its parity pack, and time it.

    The results are stored in its manifest, unless it is signed.

    Raises:
        SelfTestError: a parity gate failed.
        BudgetMissedError: it is too slow.
        Others: as ``load`` and ``Model.validate``.
    """
    with load(directory, **_unremembered(demands.options)) as model:
        parity = model.selftest(progress)
        latency = benchmark([model], demands.seconds, progress)[0]
        if demands.budget_ms is not None and latency.p50_ms > demands.budget_ms:
            raise BudgetMissedError(
                f"{model.path.name} takes {latency.p50_ms:.2f} ms here (p50, {model.backend.name}), over the budget of "
                f"{demands.budget_ms:g} ms"
            )
        model.record("parity", parity.to_dict())
        record_latency([model], [latency])
        return Proof(model.path.name, {"name": model.backend.name, **model.backend.info}, parity, latency)


def _unremembered(options: Mapping[str, Any]) -> dict[str, Any]:
    """Demand the version that is remembered, but remember no higher one: the proof may fail."""
    found = dict(options)
    remember = found.pop("remember", None)
    trust = Trust.of(found.get("trusted_key"), found.get("min_version"), remember)
    return found if trust is None else {**found, "min_version": lowest_version(trust)}
