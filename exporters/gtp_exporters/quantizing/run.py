"""``quantize``: the float32 graphs of an export in, their int8 twins and what they were judged by out."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtp_exporters.draft import Draft, linked
from gtp_exporters.errors import LimitError
from gtp_exporters.measuring.gate import GateReport
from gtp_exporters.quantizing.images import choose
from gtp_exporters.quantizing.job import PRECISION, Attempt, calibrate, float_graphs, opened, own_images
from gtp_exporters.quantizing.options import QuantizeOptions
from gtp_exporters.quantizing.search import QuantizationFailedError, check_kept, cost_of, search
from gtp_exporters.quantizing.sensitivity import LayerLoss
from gtp_runtime.deploy.signing import is_signed
from gtp_runtime.errors import OutputError
from gtp_runtime.manifest import (
    REFERENCE_NAME,
    FileEntry,
    Manifest,
    QuantizationInfo,
    check_file,
    read_manifest,
    update_manifest,
    write_manifest,
)
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.reference import read_reference
from gtp_runtime.transaction import staged


@dataclass(frozen=True)
class Quantized:
    """What was made.

    Attributes:
        directory: the artifact directory.
        files: names of the int8 files, the dense baseline's first.
        reports: how each was judged.
        kept_fp32: the layers that stay float32.
        losses: what each layer costs alone, the worst first; empty where it was not measured.
        cost: time of the model over that with no layer in float32; None where none is.
    """

    directory: Path
    files: dict[str, FileEntry]
    reports: list[GateReport]
    kept_fp32: list[str]
    losses: list[LayerLoss]
    cost: float | None

    def listed(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the int8 files in place of earlier ones, and how they were judged."""
        results = {report.file: report.to_dict() | {"cost": self.cost} for report in self.reports}
        return with_files(manifest, self.files, results)


def quantize(directory: Path | str, options: QuantizeOptions, progress: Progress = quiet) -> Quantized:
    """Quantise the float32 graphs of an export to int8, judge them, and put them beside the others.

    The new files replace earlier int8 files only once they have passed their gate.

    Args:
        directory: the artifact directory.
        options: how to quantise.
        progress: told what is being done.

    Raises:
        ManifestError: no export there, or files that are not what its manifest says.
        LimitError: no float32 graph, nothing to quantise, or an option that does not fit.
        ImageError: too few images, or one that cannot be read.
        QuantizationFailedError: the gate failed; what was measured is kept in the manifest.
        OutputError: the files cannot be written, or the directory is signed.
    """
    place = Path(directory)
    read_manifest(place)
    if is_signed(place):
        raise OutputError(f"{place} is signed, and new files would break its signature: quantise before you sign")
    try:
        with staged(place) as staging:
            linked(place, staging.path)
            made = quantize_graphs(_draft(staging.path), options, progress)
            with staging.locked():  # engines may have been built and results kept meanwhile
                linked(place, staging.path, without=made.files)
                write_manifest(made.listed(read_manifest(staging.path)), staging.path)
                staging.commit()
    except QuantizationFailedError as error:
        _keep(place, error)
        raise
    return replace(made, directory=place)


def _draft(place: Path) -> Draft:
    """Return what is in a folder, once the float32 graphs and the parity pack are what the manifest says."""
    manifest = read_manifest(place)
    for name in (REFERENCE_NAME, *float_graphs(manifest)):
        check_file(place / name, manifest)
    return Draft(place, manifest, read_reference(place / REFERENCE_NAME))


def _keep(place: Path, error: QuantizationFailedError) -> None:
    failed = {report.file: report.to_dict() for report in error.reports}
    with suppress(OSError):  # a directory that cannot be written
        update_manifest(place, lambda now: replace(now, results={**now.results, "quantization_failed": failed}))


def quantize_graphs(draft: Draft, options: QuantizeOptions, progress: Progress) -> Quantized:
    """Quantise the float32 graphs of an export and write them beside these, or raise as ``quantize`` does.

    The manifest is left to the caller: see ``Quantized.listed``.
    """
    place, manifest = draft.directory, draft.manifest
    names = float_graphs(manifest)
    folder = options.calib_data or own_images(manifest)
    used, judges = choose(manifest, draft.reference, folder, options.calib_size, options.data, options.class_order)
    if options.max_drop is not None and judges.labels is None:
        raise LimitError("--max-drop needs images whose classes are known: give --data DIR, one sub-folder a class")
    with ExitStack() as stack:
        jobs = [stack.enter_context(opened(place, name, manifest, judges, options, progress)) for name in names]
        check_kept(jobs, options)
        for job in jobs:
            calibrate(job, used, options)
        attempts, losses = search(jobs, options, used)
        cost = cost_of(attempts[-1], judges)
        files = {name: entry for attempt in attempts for name, entry in _write(attempt, place, options, len(used))}
    reports = [attempt.report for attempt in attempts]
    return Quantized(place, files, reports, list(attempts[-1].kept), losses, cost)


def _write(attempt: Attempt, place: Path, options: QuantizeOptions, images: int) -> list[tuple[str, FileEntry]]:
    form = options.form
    activations = "int8" if form.symmetric else "uint8"
    info = QuantizationInfo(
        options.target,
        activations,
        options.calibration,
        images,
        attempt.products,
        list(attempt.kept),
        options.selection,
        form.weight_bits,
    )
    written = attempt.write(place).items()
    return [(name, replace(entry, quantization=info) if entry.inputs else entry) for name, entry in written]


def with_files(manifest: Manifest, files: dict[str, FileEntry], results: dict[str, Any]) -> Manifest:
    """Return the manifest with int8 files in place of earlier ones, and without what was measured of those."""
    earlier = {name for name, entry in manifest.files.items() if _is_int8_graph(name, entry)}
    earlier |= {str(manifest.files[name].external_data) for name in earlier}
    kept = {name: entry for name, entry in manifest.files.items() if name not in earlier | files.keys()}
    measured = {
        kind: {file: result for file, result in found.items() if file not in earlier | files.keys()}
        for kind, found in manifest.results.items()
    }
    return replace(
        manifest,
        files=kept | files,
        results={kind: found for kind, found in measured.items() if found} | {"quantization": results},
    )


def _is_int8_graph(name: str, entry: FileEntry) -> bool:
    return entry.precision == PRECISION and name.endswith(".onnx")
