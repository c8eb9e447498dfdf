"""int8 for other runtimes: images that ranges are measured on, and the gate of ``quantize``, in that runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gtp_exporters.draft import Draft
from gtp_exporters.measuring.gate import GateReport, Outputs, judge, limits_of
from gtp_exporters.quantizing.images import Judges, batches, choose, prepared, read_pixels
from gtp_exporters.quantizing.job import PRECISION, own_images
from gtp_exporters.quantizing.search import QuantizationFailedError
from gtp_runtime.backends import find_backend, make_options
from gtp_runtime.manifest import FileEntry
from gtp_runtime.messages import Progress
from gtp_runtime.question import question_about

IMAGES = 128  # that ranges are measured on


@dataclass(frozen=True)
class Calibration:
    """Images.

    Attributes:
        paths: files that ranges are measured on.
        judges: others, that the gate judges on.
    """

    paths: Sequence[Path]
    judges: Judges

    @classmethod
    def of(cls, draft: Draft, folder: Path | None, data: Path | None, most: int | None = None) -> "Calibration":
        """Return the images of an export, as ``quantize`` chooses them.

        Args:
            draft: the export.
            folder, data: images to measure ranges on and to judge on; None: the recipe's own, as for ``quantize``.
            most: judges, evenly spaced; None for all.

        Raises:
            ImageError: too few, or one that cannot be read.
            LimitError: no folder, and none of the recipe's own.
        """
        folder = folder or own_images(draft.manifest)
        paths, judges = choose(draft.manifest, draft.reference, folder, IMAGES, data)
        return cls(paths, judges if most is None else judges.sample(most))

    def write(self, draft: Draft, entry: FileEntry, target: Path) -> Path:
        """Write the inputs of a graph to measure ranges on, (runs, B, 3, H, W) float32 or its like, as .npy."""
        pixels = read_pixels(draft.manifest, list(self.paths))
        size = entry.inputs[0].shape[0]
        np.save(target, np.stack([prepared(batch, entry, draft.manifest) for batch in batches(pixels, size)]))
        return target


def check_gate(
    draft: Draft, names: Sequence[str], calibration: Calibration, backend: str, threads: int, progress: Progress
) -> list[GateReport]:
    """Judge int8 files beside the float32 graphs that they were made from, and return how each was judged.

    Raises:
        QuantizationFailedError: one misses a limit of its gate.
    """
    reports = []
    for name in names:
        progress(f"judging {name}")
        reports.append(_judged(draft, name, calibration.judges, backend, threads))
    problems = [f"{report.file}: {problem}" for report in reports for problem in report.problems]
    if problems:
        raise QuantizationFailedError(
            f"int8 is too far from fp32 ({'; '.join(problems)}), so nothing was written: convert with another "
            "--precision, or give more images of the kind that the model will see (--calib-data)",
            reports,
            [],
        )
    return reports


def _judged(draft: Draft, name: str, judges: Judges, backend: str, threads: int) -> GateReport:
    manifest = draft.manifest
    entry = manifest.entry(name)
    assert entry.conversion is not None
    ours = _outputs(draft, name, judges, backend, threads)
    twin = _outputs(draft, entry.conversion.onnx, judges, "onnxruntime", threads)
    num_prop = [] if entry.role == "dense" else manifest.num_prop
    tokens, limits = int(np.prod(manifest.model.grid)), limits_of(PRECISION, None)
    return judge(name, ours, twin, judges.labels, judges.origin, num_prop, tokens, limits, question_about(manifest))


def _outputs(draft: Draft, name: str, judges: Judges, backend: str, threads: int) -> Outputs:
    path, entry = draft.directory / name, draft.manifest.entry(name)
    spec = find_backend(path, backend)
    options = make_options(spec, {"threads": threads} if "threads" in spec.option_names else {})
    model = spec.open(path, entry, options)
    images = batches(judges.pixels, entry.inputs[0].shape[0])
    parts = [model.run({entry.inputs[0].name: prepared(batch, entry, draft.manifest)}) for batch in images]
    model.close()
    names = [output.name for output in entry.outputs]
    return {name: np.concatenate([part[name] for part in parts])[: len(judges.pixels)] for name in names}
