"""``gtp-export doctor``: what this machine can do, and what to install for the rest."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from gtp_export import console
from gtp_export.options import Json

# what each extra makes possible, and the packages that it takes
ABILITIES = {
    "export": ("export models", ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxsim", "onnxruntime")),
    "onnxruntime": ("run ONNX files", ("onnxruntime",)),
}


def doctor(json: Json = False) -> None:
    """Show what is installed here, what it can do, and the pip command for what is missing."""
    packages = sorted({name for _, names in ABILITIES.values() for name in names} | {"numpy", "pillow", "gtp-export"})
    found = {name: _version(name) for name in packages}
    missing = {extra: [name for name in names if found[name] is None] for extra, (_, names) in ABILITIES.items()}
    document = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "packages": found,
        "providers": _providers(),
        "can": {what: not missing[extra] for extra, (what, _) in ABILITIES.items()},
    }
    if json:
        console.emit(document)
        return
    console.out.print(
        f"Python {document['python']} at {sys.executable}, {document['machine']}, {document['cpus']} CPUs"
    )
    console.table("", ("package", "version"), [(name, found[name] or "-") for name in packages])
    console.out.print(f"ONNX Runtime's providers: {', '.join(_providers()) or '-'}")
    for extra, (what, _) in ABILITIES.items():
        lacking = missing[extra]
        if lacking:
            console.out.print(
                f"cannot {what}: {', '.join(lacking)} missing; pip install 'gtp-export[{extra}]'",
                style="yellow",
                markup=False,
            )
        else:
            console.out.print(f"can {what}")
    console.out.print("next: gtp-export models")


def _version(name: str) -> "str | None":
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _providers() -> list[str]:
    if find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return list(onnxruntime.get_available_providers())
