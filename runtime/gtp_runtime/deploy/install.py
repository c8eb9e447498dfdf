"""Installs an export beside the present one, proves it on this device, and goes back to the last good one."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtp_runtime.deploy.signing import LARGEST_SIGNATURE, Trust, lowest_version
from gtp_runtime.deploy.store import Store
from gtp_runtime.errors import BudgetMissedError, InputError, InstallError, ManifestError
from gtp_runtime.latency import Latency, benchmark, check_duration, record_latency
from gtp_runtime.loading import load
from gtp_runtime.manifest import FILE_NAME, SIGNATURE_NAME, check_file, read_manifest
from gtp_runtime.manifest.reading import LARGEST
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.opening import open_regular
from gtp_runtime.parity import Parity

log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Installed:
    """What is installed.

    Attributes:
        target: the path that applications load.
        directory: the folder that it is a link to.
        previous: the folder that ``rollback`` goes back to; None if there is none.
        proof: what was measured before the switch.
    """

    target: Path
    directory: Path
    previous: Path | None
    proof: Proof

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "target": str(self.target),
            "directory": str(self.directory),
            "previous": self.previous and str(self.previous),
            "file": self.proof.file,
            "backend": self.proof.backend,
            "parity": self.proof.parity.to_dict(),
            "latency": self.proof.latency.to_dict(),
        }


def install(
    directory: "str | os.PathLike[str]",
    target: "str | os.PathLike[str]",
    *,
    budget_ms: float | None = None,
    seconds: float = 1.0,
    progress: Progress = quiet,
    **options: Any,
) -> Installed:
    """Put an export in place of the one at ``target``, after it was proven on this device; keep that one.

    Args:
        directory: the export, which is copied.
        target: what applications load; it becomes a link. A folder there that holds an export and nothing else is kept
            as the last good one.
        budget_ms: the most milliseconds that a run of one batch may take (p50); None for any.
        seconds: of timing.
        progress: called with the current task and the share done.
        options: arguments of ``load`` as the application gives them: ``backend``, ``precision``, ``threads``,
            ``trusted_key``, … ``remember`` is read, and left for the application to write.

    After any error, and if the process is killed, the target is as it was, or as it is to be.

    Raises:
        SelfTestError: it does not answer as its parity pack says.
        BudgetMissedError: it is slower than ``budget_ms``.
        InstallError: the target holds something else, another install is running, or the disk fails.
        InputError: an invalid argument.
        Others: as ``load``: ``ManifestError``, ``SignatureError``, ``BackendMissingError``, …
    """
    demands, store = _demands(budget_ms, seconds, options), Store(Path(target))
    with _explained(store), store.held():
        store.check_target()
        progress("copying")
        copy_export(Path(directory), store.new)
        proof = prove(store.new, demands, progress)
        store.sweep()  # what a rollback left: the version before the new one is the present one
        version = store.put()
        try:
            return _switch(store, version, proof)
        finally:
            with suppress(OSError):  # the next install does it
                store.sweep()  # the one before the last good one; this one, if the switch failed


def rollback(
    target: "str | os.PathLike[str]",
    *,
    budget_ms: float | None = None,
    seconds: float = 1.0,
    progress: Progress = quiet,
    **options: Any,
) -> Installed:
    """Go back to the last good export of ``target``, after it was proven again. Arguments and errors as ``install``.

    The export that was left is removed by the next install, once its export is proven.

    Raises:
        InstallError: there is none to go back to.
        Others: as ``install``.
    """
    demands, store = _demands(budget_ms, seconds, options), Store(Path(target))
    if store.previous() is None:  # makes no folders
        raise InstallError(f"nothing to go back to: no earlier export was kept at {store.target}")
    with _explained(store), store.held():
        earlier = store.previous()
        if earlier is None:
            raise InstallError(f"another install to {store.target} was faster: try again")
        return _switch(store, earlier, prove(earlier, demands, progress))


def _demands(budget_ms: float | None, seconds: float, options: dict[str, Any]) -> Demands:
    check_duration(seconds)
    number = isinstance(budget_ms, int | float) and not isinstance(budget_ms, bool)
    if budget_ms is not None and not (number and budget_ms > 0):
        raise InputError(f"budget_ms={budget_ms!r}: give milliseconds, above 0")
    return Demands(budget_ms, seconds, options)


def _switch(store: Store, version: Path, proof: Proof) -> Installed:
    store.switch(version)
    log.info("%s is %s now (%s)", store.target, version.name, proof.file)
    return Installed(store.target, version, store.previous(), proof)


@contextmanager
def _explained(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        at = f"{error.filename}: " if error.filename else ""
        raise InstallError(
            f"cannot install to {store.target}: {at}{error.strerror or error}; {store.target.parent} must be writable, "
            "with links and with room for a copy; what is installed is whole"
        ) from error


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
    demands = dict(options)
    remember = demands.pop("remember", None)
    trust = Trust.of(demands.get("trusted_key"), demands.get("min_version"), remember)
    return demands if trust is None else {**demands, "min_version": lowest_version(trust)}


log = logging.getLogger(__name__)


def copy_export(source: Path, place: Path) -> None:
    """Copy an export to a new folder, onto the disk. Listed files that are missing are left out.

    Raises:
        ManifestError: no manifest, or a file that is not as it says.
        OSError: no space is left, or a disk fails.
    """
    read_manifest(source)  # a wrong directory costs no copy
    place.mkdir()
    _copy(source / FILE_NAME, place / FILE_NAME, LARGEST)
    manifest = read_manifest(place)
    if os.path.lexists(source / SIGNATURE_NAME):
        _copy(source / SIGNATURE_NAME, place / SIGNATURE_NAME, LARGEST_SIGNATURE)
    for name, entry in manifest.files.items():
        if os.path.lexists(source / name):
            _copy(source / name, place / name, entry.size)
        else:
            log.info("%s is not in %s, and left out", name, source)
    for name in manifest.files:
        if (place / name).exists():
            check_file(place / name, manifest)


def _copy(source: Path, place: Path, largest: int) -> None:
    try:
        opened = open_regular(source, largest)
    except OSError as error:
        raise ManifestError(
            f"cannot copy {source}: {error.strerror}; take the directory from its source again"
        ) from error
    with opened, place.open("xb") as written:
        shutil.copyfileobj(opened, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())
