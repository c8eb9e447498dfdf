"""The manifest's entry of an engine: where and for which device it was built, and whether it can run here."""

from dataclasses import dataclass, field
from typing import Any

from gtp_runtime.errors import EngineMismatchError
from gtp_runtime.tensorrt_flavor import Flavor, release

CACHE_SUFFIX = ".rtx-cache"  # of the kernels that TensorRT-RTX keeps beside an engine


@dataclass(frozen=True)
class EngineInfo:
    """How an engine was built. Values that need a device are None if the engine was built without one.

    Attributes:
        flavor: "tensorrt" or "rtx".
        version: TensorRT's.
        cuda, driver: versions, "12.6".
        gpu: name of the GPU that built it.
        compute_capability: compute capability of that GPU, "8.7".
        targets: compute capabilities that it was built for ahead of time, ["sm86"]; if empty, it is for the GPU that
            built it (RTX: for Ampere and later).
        jetpack: Jetson Linux release, if it was built on a Jetson.
        onnx: name of the graph that it was built from; ``onnx_sha256`` is its hash.
        options: workspace, opt_level, timing_cache as given.
        build_seconds: time that the builder took.
        layers: number of layers of the parsed network.
        device_memory: device memory that a run needs, in bytes.
        inspector: TensorRT's description of the built layers.
    """

    flavor: str
    version: str
    onnx: str
    onnx_sha256: str
    layers: int
    build_seconds: float
    cuda: str | None = None
    driver: str | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    targets: list[str] = field(default_factory=list)
    jetpack: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    device_memory: int | None = None
    inspector: dict[str, Any] | None = None


def check_version(info: EngineInfo, flavor: Flavor, rebuild: str) -> None:
    """Check that the installed TensorRT can read the engine, to give a clearer message than TensorRT does.

    Args:
        info: how it was built.
        flavor: what is installed here.
        rebuild: the command that builds it again.

    Raises:
        EngineMismatchError: another flavour or version; says what was built where and how to rebuild.
    """
    if info.flavor != flavor.name or release(info.version) != release(flavor.version):
        raise EngineMismatchError(
            f"the engine was built with {_built_by(info)}, but {flavor.name} {flavor.version} is installed: "
            f"an engine runs only with the release that built it; rebuild it here with: {rebuild}"
        )


def check_device(info: EngineInfo, device: dict[str, Any], rebuild: str) -> None:
    """Check that this GPU is one that the engine was built for.

    Args:
        info: how it was built.
        device: the GPU here, as ``Cuda.describe`` returns it.
        rebuild: the command that builds it again.

    Raises:
        EngineMismatchError: another GPU.
    """
    here = device["compute_capability"]
    sm = "sm" + here.replace(".", "")
    if info.targets:
        fits = sm in info.targets
    elif info.flavor == "rtx":
        fits = float(here) >= 8.0
    else:
        fits = info.compute_capability in (None, here)
    if not fits:
        built_for = ", ".join(info.targets) or info.compute_capability or "Ampere and later"
        raise EngineMismatchError(
            f"the engine was built for {built_for} ({info.gpu or 'without a GPU'}), but this GPU is {device['gpu']} "
            f"({sm}): rebuild it here with: {rebuild}"
        )


def _built_by(info: EngineInfo) -> str:
    where = f" on {info.gpu}" if info.gpu else ""
    jetpack = f", {info.jetpack}" if info.jetpack else ""
    return f"{info.flavor} {info.version}{where}{jetpack}"
