"""``gtp-export doctor``: what this machine can do, and what to install for the rest."""

import platform
import sys
from typing import Any

from gtp_export import console
from gtp_export.extras import EXPORT, abilities
from gtp_export.options import Json
from gtp_runtime.backends.tensorrt.cuda import describe_device, find_cuda, jetpack
from gtp_runtime.backends.tensorrt.flavor import find_flavor
from gtp_runtime.cpus import usable_cpus
from gtp_runtime.errors import BackendMissingError, GTPRuntimeError, first_line
from gtp_runtime.extras import installed_version, is_installed

BASE = {"gtp_export": "gtp-export", "numpy": "numpy", "PIL": "pillow", "msgspec": "msgspec"}


def doctor(json: Json = False) -> None:
    """Show which packages are installed, what gtp-export can do with them, and the pip commands for the rest."""
    document = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpus": usable_cpus(),
        "packages": _packages(),
        "providers": _providers(),
        "openvino": _openvino(),
        "tensorrt": _tensorrt(),
        "cuda": _cuda(),
        "device": {**describe_device(), "jetpack": jetpack()},
        "missing": {extra.name: extra.missing() for ability in abilities() for extra in ability.extras},
    }
    if json:
        console.emit(document)
    else:
        _show(document)


def _show(document: dict[str, Any]) -> None:
    machine = f"{document['machine']}, {document['cpus']} CPUs"
    console.out.print(f"Python {document['python']} at {sys.executable}, {machine}", markup=False)
    console.table("", ("package", "version"), [(name, found or "-") for name, found in document["packages"].items()])
    console.out.print(f"ONNX Runtime's providers: {', '.join(document['providers']) or '-'}", markup=False)
    console.out.print(f"OpenVINO's devices: {', '.join(document['openvino']) or '-'}", markup=False)
    console.out.print(f"TensorRT: {document['tensorrt']}", markup=False)
    device = document["device"]
    gpu = f"{device['gpu']}, compute capability {device['compute_capability']}" if device["gpu"] else document["cuda"]
    console.out.print(f"GPU: {gpu}" + (f", {device['jetpack']}" if device["jetpack"] else ""), markup=False)
    for ability in abilities():
        lacks = ability.lacks()
        text = f"cannot {ability.task}: {lacks}" if lacks else f"can {ability.task}"
        console.out.print(text, style="yellow" if lacks else "", markup=False)
    console.out.print("next: gtp-export validate PATH" if EXPORT.missing() else "next: gtp-export models")


def _packages() -> "dict[str, str | None]":
    """Return the version of every package that gtp-export uses, by distribution name; None if it is missing."""
    packages = dict(BASE)
    for ability in abilities():
        for extra in ability.extras:
            packages |= extra.packages
    return dict(sorted((name, installed_version(module, name)) for module, name in packages.items()))


def _cuda() -> str:
    try:
        return find_cuda().name
    except GTPRuntimeError as error:
        return f"none ({error})"


def _tensorrt() -> str:
    try:
        flavor = find_flavor()
    except BackendMissingError as error:
        return str(error)
    return f"{flavor.name} {flavor.version}"


def _providers() -> list[str]:
    if not is_installed("onnxruntime"):
        return []
    try:
        import onnxruntime
    except ImportError as error:
        console.note(f"note: onnxruntime is installed but cannot be loaded: {first_line(error)}")
        return []
    return list(onnxruntime.get_available_providers())


def _openvino() -> list[str]:
    if not is_installed("openvino"):
        return []
    try:
        import openvino

        return list(openvino.Core().available_devices)
    except (ImportError, RuntimeError) as error:
        console.note(f"note: openvino is installed but cannot be loaded: {first_line(error)}")
        return []
