"""A float32 graph on its way to int8: calibrated once, then quantised and judged with any of its layers left out."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir

from gtp_exporters.errors import LimitError
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.describe import write_graph
from gtp_exporters.graph.files import DATA_SUFFIX, on_disk, read
from gtp_exporters.graph.structure import Product, constant_products, deciding_products
from gtp_exporters.measuring.gate import GateReport, Outputs, judge, limits_of
from gtp_exporters.quantizing.calibration import measure_ranges
from gtp_exporters.quantizing.images import Judges, batches, check_distinct, prepared, read_pixels
from gtp_exporters.quantizing.options import FORMS, QuantizeOptions
from gtp_exporters.quantizing.quantizer import Source, source
from gtp_runtime.backends import find_backend
from gtp_runtime.manifest import FileEntry, Manifest
from gtp_runtime.precisions import GateLimits
from gtp_runtime.progress import Progress

PRECISION = "int8"


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
    _twin: Outputs = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of the int8 file."""
        return int8_name(self.name)

    def attempt(self, kept: Collection[str]) -> "Attempt":
        """Quantise all layers but those in ``kept``, and judge the result."""
        self.progress(f"quantising {self.name}")
        graph = self.source.quantized(set(self.source.labels) - set(kept))
        found = self._outputs(self.opened(graph))
        self._twin = self._twin or self._outputs(self.opened(self.source.model))
        num_prop = [] if self.entry.role == "dense" else self.manifest.num_prop
        tokens = int(np.prod(self.manifest.model.grid))
        judges, activation = self.judges, self.manifest.model.activation
        report = judge(
            self.file, found, self._twin, judges.labels, judges.origin, num_prop, tokens, self.limits, activation
        )
        return Attempt(self, graph, tuple(kept), report)

    def opened(self, graph: ir.Model) -> Callable[[np.ndarray], Outputs]:
        """Open a graph with the backend; the function that is returned runs one batch of inputs."""
        spec, entry = find_backend(self.source.path, self.backend), self.entry
        with on_disk(graph) as path:
            backend = spec.open(path, entry, spec.options(threads=self.threads))
        return lambda batch: backend.run({entry.inputs[0].name: batch})

    def inputs(self, pixels: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the graph's inputs, a batch at a time."""
        for batch in batches(pixels, self.entry.inputs[0].shape[0]):
            yield prepared(batch, self.entry, self.manifest)

    def _outputs(self, run: Callable[[np.ndarray], Outputs]) -> Outputs:
        parts, total = [], len(self.judges.pixels)
        for done, batch in enumerate(self.inputs(self.judges.pixels)):
            parts.append(run(batch))
            self.progress(f"judging {self.name}", min(1.0, done * len(batch) / total))
        names = [spec.name for spec in self.entry.outputs]
        return {name: np.concatenate([part[name] for part in parts])[:total] for name in names}


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
        LimitError: there is none.
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
    entry, form = manifest.entry(name), FORMS[options.target]
    progress(f"reading {name}")
    model = infer_shapes(read(place / name, entry.external_data))
    products = constant_products(model, embedding=form.embedding)
    deciding = deciding_products(model) if options.selection else []
    _check_products(name, entry, products, deciding, options)
    backend = options.target if options.target == "openvino" and find_spec("openvino") else "onnxruntime"
    limits = limits_of(PRECISION, options.max_drop)
    with source(model, products + deciding, options.target, form) as graph:
        yield Job(name, entry, manifest, graph, judges, limits, backend, options.threads, progress)


def _check_products(
    name: str, entry: FileEntry, products: list[Product], deciding: list[Product], options: QuantizeOptions
) -> None:
    if not products:
        raise LimitError(f"{name} has no product with constant weights: there is nothing to quantise")
    if options.selection and entry.role == "model" and not deciding:
        raise LimitError(f"{name} decides by no product which tokens leave: leave out --quantize-selection")


def calibrate(job: Job, paths: Sequence[Path], options: QuantizeOptions) -> None:
    """Measure the ranges of a job on image files, a batch at a time.

    Raises:
        ImageError: an image that cannot be read, or images that are all the same.
    """
    digests: list[bytes] = []

    def inputs() -> Iterator[np.ndarray]:
        size = job.entry.inputs[0].shape[0]
        for start in range(0, len(paths), size):
            job.progress(f"measuring ranges of {job.name}", start / len(paths))
            pixels = read_pixels(job.manifest, [paths[index % len(paths)] for index in range(start, start + size)])
            digests.extend(sha256(image.tobytes()).digest() for image in pixels)
            yield prepared(pixels, job.entry, job.manifest)

    job.source.ranges = measure_ranges(
        job.source.path,
        job.source.values,
        inputs,
        kind=options.calibration,
        symmetric=job.source.form.symmetric,
        external=job.source.external,
        threads=options.threads,
    )
    check_distinct(digests)
