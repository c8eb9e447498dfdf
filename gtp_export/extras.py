"""The pip extras: what each makes possible. Those of backends come from their registry."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gtp_runtime.backends import BACKENDS
from gtp_runtime.deploy.signing import EXTRA as SIGN
from gtp_runtime.errors import GTPRuntimeError
from gtp_runtime.extras import Extra
from gtp_runtime.fleet.cluster import EXTRA as RAY

ONNX = {"onnx": "onnx", "onnx_ir": "onnx-ir"}  # build-engine reads graphs with them
EXPORT = Extra(
    "export",
    {
        "torch": "torch",
        "torchvision": "torchvision",
        "timm": "timm",
        **ONNX,
        "onnxscript": "onnxscript",
        "onnxsim": "onnxsim",
        "onnxruntime": "onnxruntime",
        "safetensors": "safetensors",
        "yaml": "pyyaml",
        "jaxtyping": "jaxtyping",
        "jinja2": "jinja2",
    },
)


REPORT = Extra("report", {"jinja2": "jinja2"})
TUNE = Extra("tune", {"optuna": "optuna"})


@dataclass(frozen=True)
class Ability:
    """A task that gtp-export can do if its packages are installed.

    Attributes:
        task: a phrase that continues "can".
        extras: pip extras, one of which is needed.
        find_device: raises ``GTPRuntimeError`` if the device that it needs is missing.
    """

    task: str
    extras: tuple[Extra, ...]
    find_device: Callable[[], object] = lambda: None

    def lacks(self) -> str:
        """Return what is missing and what to do about it; "" if nothing is missing."""
        nearest = min(self.extras, key=lambda extra: len(extra.missing()))
        if nearest.missing():
            commands = " or ".join(extra.command for extra in self.extras)
            return f"{', '.join(nearest.missing())} missing; {commands}"
        try:
            self.find_device()
        except GTPRuntimeError as error:
            return str(error)
        return ""


def abilities() -> list[Ability]:
    """Return all that gtp-export can do with its extras."""
    specs = BACKENDS
    build = tuple(replace(extra, packages={**extra.packages, **ONNX}) for extra in specs["tensorrt"].extras)
    running = [Ability(f"run {spec.runs}", spec.extras, spec.find_device) for spec in specs.values()]
    report = Ability("write reports", (REPORT,))
    signing = Ability("sign exports, and verify signatures", (SIGN,))
    tuning = Ability("search for settings", (TUNE,))
    fleet = Ability("spread work over a Ray cluster", (RAY,))
    return [
        Ability("export models", (EXPORT,)),
        tuning,
        report,
        Ability("build TensorRT engines", build),
        *running,
        signing,
        fleet,
    ]


def extra_of(module: str) -> Extra | None:
    """Return the extra that installs a top-level module: the one that names it first, and of those the smallest."""
    extras = [extra for ability in abilities() for extra in ability.extras]
    modules = [[name.partition(".")[0] for name in extra.packages] for extra in extras]
    candidates = [
        (names.index(module), len(names), extra)
        for names, extra in zip(modules, extras, strict=True)
        if module in names
    ]
    return min(candidates, key=lambda candidate: candidate[:2], default=(0, 0, None))[2]


def missing_extra(error: ModuleNotFoundError) -> str:
    """Return the missing package and the pip command that installs it, or "" for a module that no extra installs."""
    package = (error.name or "").partition(".")[0]
    if package in ONNX:  # a device needs them without the rest of the export extra
        return f"{ONNX[package]} is not installed: pip install {' '.join(ONNX.values())}"
    extra = extra_of(package)
    return f"{package} is not installed: {extra.command}" if extra else ""
