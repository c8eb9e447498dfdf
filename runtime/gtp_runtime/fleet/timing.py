"""Measures latency on a fleet's device: the files are sent there, and timed in turn in one process."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from gtp_runtime.comparing import benchmark
from gtp_runtime.fleet.parcels import Parcel, unpacked
from gtp_runtime.latency import Latency
from gtp_runtime.timing import MIN_RUNS


@dataclass(frozen=True)
class Timing:
    """Files to be timed, for ``Fleet.on_device(time_parcels, timing)``.

    Attributes:
        parcels: the files; the dense baseline first.
        seconds, rounds: as ``gtp_runtime.benchmark`` takes them.
    """

    parcels: Sequence[Parcel]
    seconds: float = 3.0
    rounds: int = MIN_RUNS


def time_parcels(timing: Timing) -> list[Latency]:
    """Time files in turn in this process; ``Latency.file`` is the name of each.

    Raises:
        BackendMissingError, EngineMismatchError, DeviceError: this machine cannot run one of them.
        InputError: files of different batch sizes.
    """
    with ExitStack() as stack:
        models = [stack.enter_context(unpacked(parcel)) for parcel in timing.parcels]
        for model in models:
            stack.callback(model.close)
        found = benchmark(models, timing.seconds, rounds=timing.rounds)
    return [replace(result, file=parcel.name) for result, parcel in zip(found, timing.parcels, strict=True)]
