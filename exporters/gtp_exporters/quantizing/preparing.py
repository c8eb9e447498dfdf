"""From an export's float32 graphs to jobs whose ranges are measured."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gtp_exporters.errors import LimitError
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.files import read
from gtp_exporters.graph.structure import Product, constant_products, deciding_products
from gtp_exporters.quantizing.calibration import measure_ranges
from gtp_exporters.quantizing.forms import FORMS
from gtp_exporters.quantizing.gate import limits_of
from gtp_exporters.quantizing.images import Judges, check_distinct
from gtp_exporters.quantizing.job import PRECISION, Job, prepared
from gtp_exporters.quantizing.options import QuantizeOptions
from gtp_exporters.quantizing.quantizer import source
from gtp_runtime.images.folders import spread
from gtp_runtime.manifest import FileEntry, Manifest
from gtp_runtime.progress import Progress

PROBES = 32  # images that the loss of each layer is measured on


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


def probes_of(manifest: Manifest, paths: Sequence[Path]) -> np.ndarray:
    """Read the images, (N, H, W, 3) uint8, that the loss of each layer is measured on."""
    return read_pixels(manifest, spread(paths, PROBES))


def read_pixels(manifest: Manifest, paths: Sequence[Path]) -> np.ndarray:
    """Read images, (N, H, W, 3) uint8, as the model sees them."""
    return np.stack([manifest.preprocessing.pixels(path) for path in paths])
