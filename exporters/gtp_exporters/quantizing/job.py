"""One graph on its way to int8: calibrated once, then quantised and judged with any of its layers left out."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from gtp_exporters.graph.describe import write_graph
from gtp_exporters.graph.files import DATA_SUFFIX, on_disk
from gtp_exporters.quantizing.gate import GateReport, Outputs, judge
from gtp_exporters.quantizing.images import Judges, batches
from gtp_exporters.quantizing.quantizer import Source
from gtp_runtime.backends import find_backend
from gtp_runtime.manifest import FileEntry, Manifest
from gtp_runtime.precisions import GateLimits
from gtp_runtime.progress import Progress

Prepare = Callable[[np.ndarray], np.ndarray]
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
        judges = self.judges
        report = judge(self.file, found, self._twin, judges.labels, judges.origin, num_prop, tokens, self.limits)
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
        return write_graph(path, self.graph, entry.role, entry.method, entry.macs)


def prepared(pixels: np.ndarray, entry: FileEntry, manifest: Manifest) -> np.ndarray:
    """Turn (B, H, W, 3) uint8 pixels into the input of a graph."""
    return pixels if entry.inputs[0].dtype == "uint8" else manifest.preprocessing.normalise(pixels)


def int8_name(name: str) -> str:
    """Return the name of the int8 file of a float32 one: model.int8.onnx of model.onnx."""
    return f"{Path(name).stem}.{PRECISION}{Path(name).suffix}"
