"""A float32 graph on its way to int8: calibrated once, then quantised and judged with any of its layers left out."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

from gtp_exporters.draft import check_fixed
from gtp_exporters.errors import LimitError
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.describe import write_graph
from gtp_exporters.graph.files import DATA_SUFFIX, on_disk, read
from gtp_exporters.graph.structure import Product, constant_products, deciding_products
from gtp_exporters.measuring.gate import GateReport, Outputs, hopeless, judge, limits_of
from gtp_exporters.quantizing.calibration import BINS, measure_ranges
from gtp_exporters.quantizing.images import Judges, batches, check_distinct, prepared, read_pixels
from gtp_exporters.quantizing.migrating import Group, groups, is_own, migrate, turned
from gtp_exporters.quantizing.options import QuantizeOptions
from gtp_exporters.quantizing.quantizer import Source, source
from gtp_exporters.quantizing.rounding import codes, steps
from gtp_exporters.quantizing.samples import Sample, collect
from gtp_exporters.quantizing.scales import Scaling, shift, step_of
from gtp_exporters.quantizing.sensitivity import LayerLoss, losses
from gtp_runtime.backends import find_backend
from gtp_runtime.manifest import FileEntry, Manifest
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.precisions import GateLimits
from gtp_runtime.question import LOGITS, Question, question_about

PRECISION = "int8"
EARLY = 64  # images after which a gate that is sure to fail ends the judging; again after four times as many


@dataclass
class Job:
    """A graph that is quantised.

    Attributes:
        name: of its float32 file; the int8 file is called likewise.
        entry: what the manifest says of the float32 file.
        manifest: of the export.
        source: the graph, calibrated.
        judges: what it is judged on.
        limits: what the gate allows.
        backend: the name of what runs it to be judged.
        threads: 0 for all.
        progress: told what is being done.
        gate: judging ends early where the gate is sure to fail.
    """

    name: str
    entry: FileEntry
    manifest: Manifest
    source: Source
    judges: Judges
    limits: GateLimits
    backend: str
    threads: int
    progress: Progress
    gate: bool = True
    _twin: list[Outputs] = field(default_factory=list)

    @property
    def question(self) -> Question:
        """What the answers are measured by."""
        return question_about(self.manifest)

    @property
    def file(self) -> str:
        """The name of the int8 file."""
        return int8_name(self.name)

    def attempt(self, kept: Collection[str]) -> "Attempt":
        """Quantise all layers but those in ``kept``, and judge the result."""
        self.progress(f"quantising {self.name}")
        graph = self.source.quantized(set(self.source.labels) - set(kept))
        found, twin = self._outputs(self.opened(graph))
        num_prop = [] if self.entry.role == "dense" else self.manifest.num_prop
        tokens, judges = int(np.prod(self.manifest.model.grid)), self.judges
        labels = None if judges.labels is None else judges.labels[: len(next(iter(found.values())))]
        report = judge(self.file, found, twin, labels, judges.origin, num_prop, tokens, self.limits, self.question)
        return Attempt(self, graph, tuple(kept), report)

    def on(self, pixels: np.ndarray) -> "Job":
        """Return the same job that is judged on other (N, H, W, 3) uint8 images."""
        return replace(self, judges=Judges(pixels, None, "calibration"), _twin=[])

    def opened(self, graph: ir.Model, threads: int | None = None) -> Callable[[np.ndarray], Outputs]:
        """Open a graph with the backend; the function that is returned runs one batch of inputs."""
        threads = self.threads if threads is None else threads
        spec, entry = find_backend(self.source.path, self.backend), self.entry
        with on_disk(graph) as path:
            backend = spec.open(path, entry, spec.options(threads=threads))
        return lambda batch: backend.run({entry.inputs[0].name: batch})

    def inputs(self, pixels: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the graph's inputs, a batch at a time."""
        for batch in batches(pixels, self.entry.inputs[0].shape[0]):
            yield prepared(batch, self.entry, self.manifest)

    def losses(self, probes: np.ndarray) -> list[LayerLoss]:
        """Return what each layer loses alone on (N, H, W, 3) uint8 images, the worst first."""
        activation = self.question.activation if self.question.kind == LOGITS else None
        return losses(self.source, list(self.inputs(probes)), self.progress, self.threads, activation)

    def _outputs(self, run: Callable[[np.ndarray], Outputs]) -> tuple[Outputs, Outputs]:
        """Return what a quantised graph and its twin answer, on all images or as many as show that the gate fails."""
        parts, total = list[Outputs](), len(self.judges.pixels)
        checks = [EARLY, 4 * EARLY] if self.gate else []
        for number, batch in enumerate(self.inputs(self.judges.pixels)):
            parts.append(run(batch))
            if number == len(self._twin):
                self._twin.append(self._twin_run(batch))
            done = min(total, (number + 1) * len(batch))
            self.progress(f"judging {self.name}", done / total)
            if checks and checks[0] <= done < total:
                checks.pop(0)
                found, twin = self._joined(parts, done), self._joined(self._twin, done)
                if hopeless(found, twin, self.limits, self.question):
                    return found, twin
        return self._joined(parts, total), self._joined(self._twin, total)

    def _joined(self, parts: Sequence[Outputs], images: int) -> Outputs:
        names = [spec.name for spec in self.entry.outputs]
        return {name: np.concatenate([part[name] for part in parts])[:images] for name in names}

    @cached_property
    def _twin_run(self) -> Callable[[np.ndarray], Outputs]:
        return self.opened(self.source.model)


@dataclass(frozen=True)
class Attempt:
    """An int8 graph, the layers that it keeps in float32, and how it was judged."""

    job: Job
    graph: ir.Model
    kept: tuple[str, ...]
    report: GateReport

    @property
    def products(self) -> int:
        """How many products are int8."""
        return sum(product.label not in self.kept for product in self.job.source.products)

    def write(self, directory: Path) -> dict[str, FileEntry]:
        """Write the file and return its entries by name."""
        entry, path = self.job.entry, directory / self.job.file
        for name in (path.name, path.name + DATA_SUFFIX):
            (directory / name).unlink(missing_ok=True)  # an earlier one may be linked from elsewhere
        return write_graph(path, self.graph, entry.role, PRECISION, entry.method, entry.macs)


def int8_name(name: str) -> str:
    """Return the name of the int8 file of a float32 one: model.int8.onnx of model.onnx."""
    return f"{Path(name).stem}.{PRECISION}{Path(name).suffix}"


def float_graphs(manifest: Manifest) -> list[str]:
    """Return the names of the float32 graphs, the dense baseline's first.

    Raises:
        LimitError: there is none, or it takes a range of batches.
    """
    graphs = {
        name: entry
        for name, entry in manifest.files.items()
        if name.endswith(".onnx") and entry.role in ("dense", "model")
    }
    names = [name for name, entry in graphs.items() if entry.precision == "fp32"]
    if not names:
        there = ", ".join(sorted({entry.precision for entry in graphs.values()})) or "none"
        raise LimitError(
            f"int8 is made from a float32 graph, and those there are {there}: export with --precision fp32"
        )
    for name in names:
        check_fixed(graphs[name], "int8")
    return sorted(names, key=lambda name: manifest.files[name].role)


def own_images(manifest: Manifest) -> Path:
    """Return the calibration images of the recipe that an export was made from.

    Raises:
        LimitError: it has none.
    """
    from gtp_models.recipes import load_recipe, recipe_names

    name = manifest.model.name
    recipe = load_recipe(name) if name in recipe_names() else None
    if recipe is None or recipe.calibration is None or recipe.timm != manifest.model.timm:
        raise LimitError(
            f"{name} has no calibration images of its own: give --calib-data DIR, hundreds of images of the kind that "
            "the model will see"
        )
    return recipe.calibration


@contextmanager
def opened(
    place: Path, name: str, manifest: Manifest, judges: Judges, options: QuantizeOptions, progress: Progress
) -> Iterator[Job]:
    """Yield the job of a float32 graph, not yet calibrated.

    Raises:
        LimitError: nothing to quantise.
        StaticCheckError: the graph cannot be read.
    """
    entry, form = manifest.entry(name), options.form
    progress(f"reading {name}")
    model = infer_shapes(read(place / name, entry.external_data))
    products = constant_products(model, embedding=form.embedding)
    deciding = deciding_products(model) if options.selection else []
    _check_products(name, entry, products, deciding, options)
    backend = options.target if options.target == "openvino" and find_spec("openvino") else "onnxruntime"
    limits = limits_of(PRECISION, options.max_drop)
    with source(model, products + deciding, options.target, form) as graph:
        yield Job(name, entry, manifest, graph, judges, limits, backend, options.threads, progress, options.gate)


def _check_products(
    name: str, entry: FileEntry, products: list[Product], deciding: list[Product], options: QuantizeOptions
) -> None:
    if not products:
        raise LimitError(f"{name} has no product with constant weights: there is nothing to quantise")
    if options.selection and entry.role == "model" and not deciding:
        raise LimitError(f"{name} decides by no product which tokens leave: leave out --quantize-selection")


def calibrate(job: Job, paths: Sequence[Path], options: QuantizeOptions) -> None:
    """Move scales into weights, and choose the ranges, of a job by image files, a batch at a time.

    Raises:
        ImageError: an image that cannot be read, images that are all the same, a value that is not finite.
    """
    digests: list[bytes] = []

    def inputs() -> Iterator[np.ndarray]:
        digests.clear()
        size = job.entry.inputs[0].shape[0]
        for start in range(0, len(paths), size):
            job.progress(f"measuring ranges of {job.name}", start / len(paths))
            pixels = read_pixels(job.manifest, [paths[index % len(paths)] for index in range(start, start + size)])
            digests.extend(sha256(image.tobytes()).digest() for image in pixels)
            yield prepared(pixels, job.entry, job.manifest)

    source = job.source
    fit(source, inputs(), options.threads, job.progress)
    check_distinct(digests)
    if options.calibration in BINS:
        source.ranges = measure_ranges(
            source.path,
            source.values,
            inputs,
            kind=options.calibration,
            symmetric=source.form.symmetric,
            external=source.external,
            threads=options.threads,
        )


def fit(source: Source, batches: Iterable[np.ndarray], threads: int, progress: Progress = quiet) -> None:
    """Move scales into the weights of a graph, set ranges, codes of weights, and the shifts of biases."""
    symmetric, members = source.form.symmetric, groups(source.model, source.products)
    widths: dict[str, int | None] = dict.fromkeys(source.values)
    widths |= {group.value: len(group.weights[0]) for group in members}
    samples = collect(source.model, widths, batches, threads)
    scalings = migrate(members, samples, symmetric=symmetric)
    ends = {value: (sample.low.min(), sample.high.max()) for value, sample in samples.items()}
    for done, group in enumerate(members):
        progress("rounding weights", done / len(members))
        scaling = scalings[group.value]
        ends[group.taken] = (scaling.low, scaling.high)
        _round(source, group, samples.pop(group.value), scaling)
    source.save()
    pairs = {value: (np.float32(low), np.float32(high)) for value, (low, high) in ends.items()}
    source.ranges = TensorsData(CalibrationMethod.MinMax, pairs)


def _round(source: Source, group: Group, sample: Sample, scaling: Scaling) -> None:
    """Choose the codes of the weights of a group, and the shifts of its biases."""
    symmetric = source.form.symmetric
    covariance = sample.covariance / np.outer(scaling.scales, scaling.scales)
    if not all(group.biased):  # nothing makes up for means
        mean = sample.mean / scaling.scales
        covariance = covariance + np.outer(mean, mean)
    noise = float(step_of(scaling.low, scaling.high, symmetric=symmetric)[0]) ** 2 / 12
    weights, largest = group.weights, source.form.largest
    made = codes(weights, covariance, noise, largest)
    for node, weight, chosen in zip(group.nodes, weights, made, strict=True):
        rounded = chosen * steps(weight, largest)
        source.shifts[str(node.name)] = shift(sample, weight, rounded, scaling, symmetric=symmetric)
        if is_own(node.inputs[1]):
            source.codes[str(node.name)] = np.ascontiguousarray(chosen.T if turned(node) else chosen)
