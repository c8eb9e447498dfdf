"""``convert``: the float32 graphs of an export in, files for another runtime and what proves them out."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gtp_exporters.converting.formats import FORMATS, Format
from gtp_exporters.converting.int8 import Calibration, check_gate
from gtp_exporters.converting.rewrites import rewritten
from gtp_exporters.draft import Draft, check_fixed, linked
from gtp_exporters.errors import LimitError
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.files import read, save
from gtp_exporters.measuring.gate import GateReport
from gtp_exporters.proof import ParityFailedError, Proof, prove_files
from gtp_exporters.quantizing.job import PRECISION
from gtp_runtime.deploy.signing import is_signed
from gtp_runtime.errors import BackendMissingError, OutputError
from gtp_runtime.manifest import (
    REFERENCE_NAME,
    ConversionInfo,
    FileEntry,
    Manifest,
    check_file,
    file_sha256,
    read_manifest,
    write_manifest,
)
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.reference import read_reference
from gtp_runtime.transaction import staged

ROLES = ("dense", "model")


@dataclass(frozen=True)
class Converted:
    """What was made.

    Attributes:
        directory: the artifact directory.
        files: entries by name, the dense baseline's first.
        proof: parity and latency in the format's own runtime; None without a check, or where nothing here runs it.
        reports: how int8 files were judged beside float32; empty for others.
    """

    directory: Path
    files: dict[str, FileEntry]
    proof: Proof | None
    reports: list[GateReport] = field(default_factory=list)


def convert(
    directory: Path | str,
    to: str,
    *,
    precision: str | None = None,
    soc: str | None = None,
    check: bool = True,
    calib_data: Path | None = None,
    data: Path | None = None,
    threads: int = 1,
    progress: Progress = quiet,
) -> Converted:
    """Convert the graphs of an export, reduced and dense, to another runtime's format, and prove the files there.

    They are put beside the graphs once they have passed the parity gates, in place of earlier ones of their names.
    Core ML runs on Apple's systems alone: its files are not proven, and have no results in the manifest.

    Args:
        directory: the artifact directory.
        to: a name of ``FORMATS``.
        precision: one that the format has; default: its first. int8 has a gate as ``quantize`` has.
        soc: the SoC that files are compiled for, where the format is for one ("SM8550").
        check: validate and time the files, where a backend runs them.
        calib_data: for int8, a folder of images to measure ranges on (default: the recipe's own).
        data: for int8, a folder of images that the gate judges on (default: as for ``quantize``).
        threads: threads for the check; 0 is all.
        progress: told what is being done.

    Raises:
        LimitError: an unknown format, precision or SoC, no float32 graph, a range of batches, images
            for another precision than int8, or int8 without a check.
        ManifestError: no export there, or files that are not what its manifest says.
        BackendMissingError, MissingPackageError: the runtime or the converter is missing.
        ConversionError: the converter failed.
        ImageError: too few images for int8, or one that cannot be read.
        QuantizationFailedError: int8 misses its gate; earlier files are unchanged.
        ParityFailedError: the files answer otherwise; earlier ones are unchanged.
        OutputError: the files cannot be written, or the directory is signed.
    """
    form, place = _format(to), Path(directory)
    precision, soc = check_written(to, precision), _soc(to, form, soc)
    _check_images(precision, check, calib_data, data)
    names = _graphs(read_manifest(place), place, to)
    if check and form.backend and form.extra.missing():
        raise BackendMissingError(
            f"{', '.join(form.extra.missing())} is not installed, so the files could not be proven: "
            f"{form.extra.command}; --no-check converts without proof"
        )
    if is_signed(place):
        raise OutputError(f"{place} is signed, and new files would break its signature: convert before you sign")
    form.ready(progress)
    with staged(place) as staging:
        linked(place, staging.path)
        draft = _draft(staging.path, names)
        images = Calibration.of(draft, calib_data, data, form.judges) if precision == PRECISION else None
        files = convert_graphs(draft, names, to, precision, progress, soc, images)
        draft = draft.with_files(files)
        reports, proof = [], None
        if images and form.backend:
            reports = check_gate(draft, list(files), images, form.backend, threads, progress)
        if check and form.backend:
            proof = prove_files(draft, list(files), form.backend, threads, progress, form.images)
        _check(proof, place)
        with staging.locked():  # results may have been kept meanwhile
            linked(place, staging.path, without=files)
            measured = {} if proof is None else proof.results
            if reports:
                measured = {**measured, "quantization": {report.file: report.to_dict() for report in reports}}
            write_manifest(listed(read_manifest(staging.path), files, measured), staging.path)
            staging.commit()
    return Converted(place, files, proof, reports)


def _format(to: str) -> Format:
    if to not in FORMATS:
        raise LimitError(f"to={to!r} is unknown: choose one of {', '.join(FORMATS)}")
    return FORMATS[to]


def check_written(to: str, precision: str | None) -> str:
    """Return the precision of a format's files, by default its first. Raises ``LimitError`` for one it has not."""
    known = FORMATS[to].precisions
    if precision is not None and precision not in known:
        raise LimitError(f"{to} is not written in {precision}: choose one of {', '.join(known)}")
    return precision or known[0]


def _soc(to: str, form: Format, soc: str | None) -> str | None:
    if not form.socs:
        if soc is not None:
            raise LimitError(f"soc={soc!r}: {to} files run on any SoC: leave it out")
        return None
    if (soc or "").upper() not in form.socs:
        problem = f"a {form.suffix} file is made for one SoC" if soc is None else f"soc={soc!r} is unknown"
        raise LimitError(f"{problem}: choose one of {', '.join(form.socs)}")
    return str(soc).upper()


def _check_images(precision: str, check: bool, *folders: Path | None) -> None:
    if precision != PRECISION and any(folder is not None for folder in folders):
        raise LimitError(f"images to measure ranges and to judge on have no effect in {precision}: leave them out")
    if precision == PRECISION and not check:
        raise LimitError(f"{PRECISION} is judged beside float32, so it has no form without a check")


def _graphs(manifest: Manifest, place: Path, to: str) -> list[str]:
    """Return the names of the float32 graphs, the dense baseline first."""
    graphs = {name: entry for name, entry in manifest.files.items() if name.endswith(".onnx")}
    names = [name for role in ROLES for name, entry in graphs.items() if entry.role == role]
    names = [name for name in names if graphs[name].precision == "fp32"]
    if not any(graphs[name].role == "model" for name in names):
        raise LimitError(f"{place} has no fp32 graph, and other files are made from one: export with --precision fp32")
    for name in names:
        check_fixed(graphs[name], f"{to}'s converter")
    return names


def _draft(place: Path, names: list[str]) -> Draft:
    manifest = read_manifest(place)
    for name in (REFERENCE_NAME, *names):
        check_file(place / name, manifest)
    return Draft(place, manifest, read_reference(place / REFERENCE_NAME))


def convert_graphs(
    draft: Draft,
    names: Sequence[str],
    to: str,
    precision: str,
    progress: Progress,
    soc: str | None = None,
    images: Calibration | None = None,
) -> dict[str, FileEntry]:
    """Convert float32 graphs of an export and write the files beside them; the manifest is left to the caller.

    ``FORMATS[to].ready`` was called; ``images`` are for int8. Raises ``ConversionError`` where the converter fails.
    """
    files = {}
    for name in names:
        progress(f"converting {name} with {FORMATS[to].converter}")
        files.update(_converted(draft, name, to, precision, soc, images))
    return files


def file_name(graph: str, to: str, precision: str) -> str:
    """Return what a graph is called in another format: model.onnx is model.fp16.mnn."""
    middle = "" if precision == "fp32" else f".{precision}"
    return f"{Path(graph).stem}{middle}{FORMATS[to].suffix}"


def _converted(
    draft: Draft, name: str, to: str, precision: str, soc: str | None, images: Calibration | None
) -> dict[str, FileEntry]:
    """Convert a copy of a graph, in a folder of its own: converters change their input and write beside it."""
    form, entry, start = FORMATS[to], draft.manifest.entry(name), time.perf_counter()
    target = draft.directory / file_name(name, to, precision)
    graph = rewritten(infer_shapes(read(draft.directory / name, entry.external_data)), form.rewrites)
    with TemporaryDirectory(prefix="gtp-export-") as work:
        save(graph, Path(work) / name)
        made = Path(work) / target.name
        more: dict[str, Any] = {"soc": soc} if soc else {}
        if images is not None:
            more["inputs"] = images.write(draft, entry, Path(work) / "inputs.npy")
        version = form.convert(Path(work) / name, made, precision, **more)
        target.unlink(missing_ok=True)
        shutil.move(made, target)
    seconds = round(time.perf_counter() - start, 2)
    info = ConversionInfo(to, form.converter, version, name, entry.sha256, list(form.rewrites), seconds, soc or "")
    described = replace(entry, precision=precision, nodes=0, external_data=None, conversion=info)
    return {target.name: replace(described, sha256=file_sha256(target), size=target.stat().st_size)}


def _check(proof: Proof | None, place: Path) -> None:
    if proof is not None and proof.parity is not None and not proof.parity.ok:
        raise ParityFailedError(
            f"the converted files failed their parity gates ({'; '.join(proof.parity.problems)}), so they were not put "
            f"into {place}: nothing there was changed",
            proof,
        )


def listed(manifest: Manifest, files: Mapping[str, FileEntry], measured: Mapping[str, dict[str, Any]]) -> Manifest:
    """Return the manifest with converted files in place of earlier ones, and what was measured of them."""
    kinds = dict.fromkeys((*manifest.results, *measured))
    results = {
        kind: {
            **{name: result for name, result in manifest.results.get(kind, {}).items() if name not in files},
            **measured.get(kind, {}),
        }
        for kind in kinds
    }
    return replace(manifest, files={**manifest.files, **files}, results=results)
