"""Where the operators of a loaded file run: a device may leave some of them to another, as a rule to the CPU."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Placement:
    """The operators of a file by device.

    Attributes:
        nodes: number of operators by device, or by execution provider ("cuda", "cpu").
        fell_back: those that do not run on the device that was asked for: number by type of operator ("TopK").
    """

    nodes: dict[str, int]
    fell_back: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        counts = ", ".join(f"{device} {count}" for device, count in self.nodes.items())
        if not self.fell_back:
            return f"operators: {counts}; none fell back"
        types = ", ".join(f"{name} {count}" for name, count in self.fell_back.items())
        return f"operators: {counts}; fell back: {types}"


def place(nodes: Iterable[tuple[str, str]], asked: str) -> Placement:
    """Count operators, the most frequent first.

    Args:
        nodes: the device and the type of each operator.
        asked: the device that was asked for.
    """
    listed = list(nodes)
    devices = Counter(device for device, _ in listed)
    types = Counter(kind for device, kind in listed if device != asked)
    return Placement(dict(devices.most_common()), dict(types.most_common()))
