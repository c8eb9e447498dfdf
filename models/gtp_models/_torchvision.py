"""Lets torchvision be imported beside a torch build that it was not compiled for.

torchvision registers fake kernels for two of its compiled operators when it is imported. Where the compiled library
does not fit the installed torch (a CUDA wheel beside a CPU torch), they are missing and the import fails with
``operator torchvision::nms does not exist``; timm cannot be imported either. Vision Transformers use none of
torchvision's compiled operators, so it is enough to declare the two schemas before torchvision looks for them. Beside a
torch of the same build nothing is changed: the versions tell, without an import.
"""

import importlib.util
import logging
import re
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)
SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[Any] = []  # what declared operators takes them with it when it is collected


def declare_operators() -> None:
    """Declare torchvision's ``nms`` and ``qnms`` where its compiled library did not."""
    import torch
    from torch import library as extensions

    missing = [schema for name, schema in SCHEMAS.items() if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return
    fragment: Any = extensions.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in missing:
        fragment.define(schema)
    _declared.append(fragment)
    log.info("torchvision's compiled library does not fit this torch: declared %s", ", ".join(missing))


class _MendingLoader(Loader):
    """Modifications: loads ``torchvision.extension`` as usual, then declares what it failed to load."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        declare_operators()


class _TorchvisionFinder(MetaPathFinder):
    """Wraps the loader of ``torchvision.extension``, the module that loads the compiled library."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname != "torchvision.extension":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _MendingLoader(spec.loader)
        return spec


def fits(torch: str, torchvision: str) -> bool:
    """Whether two versions are of one build: torchvision 0.N goes with torch 2.(N - 15), and both have the same tag.

    >>> fits("2.13.0+cpu", "0.28.0+cpu"), fits("2.13.0+cpu", "0.28.0+cu130")
    (True, False)
    """
    (release, _, tag), (release_of_vision, _, tag_of_vision) = torch.partition("+"), torchvision.partition("+")
    major, minor, *_ = release.split(".")
    return tag == tag_of_vision and major == "2" and release_of_vision.startswith(f"0.{int(minor) + 15}.")


def _version(package: str) -> str | None:
    """Return the version of a package that is installed, from its ``version.py``, without importing it."""
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin or "").with_name("version.py") if spec else None
    match = re.search(r"__version__ = '([^']+)'", file.read_text("utf-8")) if file and file.exists() else None
    return match and match[1]


def install() -> None:
    """Put the import hook in place where the installed torchvision does not fit the installed torch; idempotent."""
    torch, torchvision = _version("torch"), _version("torchvision")
    if torch is None or torchvision is None or fits(torch, torchvision):
        return
    if not any(isinstance(finder, _TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchvisionFinder())
