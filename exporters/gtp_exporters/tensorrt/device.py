"""What is known of machine and engine where an engine is built; None for what needs a device that is not here."""

import json
import re
from pathlib import Path
from typing import Any

from gtp_runtime.cuda import find_cuda
from gtp_runtime.errors import GTPRuntimeError
from gtp_runtime.tensorrt_flavor import Flavor
from gtp_runtime.tensorrt_log import make_logger

TEGRA_RELEASE = Path("/etc/nv_tegra_release")


def describe_device() -> dict[str, Any]:
    """Return ``gpu``, ``compute_capability``, ``driver`` and ``cuda`` of this machine; None without a GPU."""
    try:
        found = find_cuda().describe()
    except GTPRuntimeError:
        return dict.fromkeys(("gpu", "compute_capability", "driver", "cuda"))
    return {
        "gpu": found["gpu"],
        "compute_capability": found["compute_capability"],
        "driver": found["driver"],
        "cuda": found["runtime"],
    }


def jetpack() -> str | None:
    """Return the Jetson Linux release, "L4T 36.4"; None elsewhere."""
    try:
        text = TEGRA_RELEASE.read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"R(\d+).*?REVISION: ([\d.]+)", text)
    return f"L4T {found[1]}.{found[2]}" if found else None


def inspect_plan(flavor: Flavor, plan: bytes) -> tuple[int | None, dict[str, Any] | None]:
    """Return an engine's device memory in bytes and TensorRT's description of its layers; None without a device."""
    engine = flavor.trt.Runtime(make_logger(flavor.trt)).deserialize_cuda_engine(plan)
    if engine is None:
        return None, None
    memory = getattr(engine, "device_memory_size_v2", None)
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(flavor.trt.LayerInformationFormat.JSON)
    return memory, json.loads(text)
