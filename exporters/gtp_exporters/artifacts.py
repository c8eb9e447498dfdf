"""The files of an export: graphs, reference and manifest."""

import gc
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from gtp_exporters.agreement import Known
from gtp_exporters.draft import Draft
from gtp_exporters.float_twin import keep_float
from gtp_exporters.graph.batch import TRACED, free_batch
from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.describe import describe, strip, tool_versions, write_graph
from gtp_exporters.graph.precision import to_precision
from gtp_exporters.graph.ranks import to_form
from gtp_exporters.graph.rules import simplify
from gtp_exporters.graph.trace import Traced, nodes_per_layer, to_onnx, without_collection
from gtp_exporters.options import ExportOptions
from gtp_exporters.proof import check_reference
from gtp_exporters.reference import ReferenceImages, dense_outputs, make_reference
from gtp_exporters.subject import Subject
from gtp_models.frame.patch import remove
from gtp_models.methods import make_settings
from gtp_models.methods.apply import apply
from gtp_models.plan import Plan
from gtp_runtime.manifest import (
    MODEL_NAME,
    REFERENCE_NAME,
    FileEntry,
    LayerEntry,
    Manifest,
    ModelInfo,
    WeightsInfo,
    file_sha256,
    write_manifest,
)
from gtp_runtime.messages import Progress
from gtp_runtime.reference import Reference, write_reference

DENSE_NAME = "dense.onnx"


def write_artifacts(
    subject: Subject, plan: Plan, images: ReferenceImages, options: ExportOptions, directory: Path, progress: Progress
) -> Manifest:
    """Write every file of an export into an empty directory, the manifest last. Raises as ``draft`` does."""
    export = draft(subject, plan, images, options, directory, progress)
    write_manifest(export.manifest, directory)
    return export.manifest


def draft(
    subject: Subject, plan: Plan, images: ReferenceImages, options: ExportOptions, directory: Path, progress: Progress
) -> Draft:
    """Write the graphs and the reference of an export into an empty directory; the manifest is left to the caller.

    The model, patched with the plan, and its dense baseline are run on the reference's images, then traced. What eager
    PyTorch answers is the reference, and what simplified graphs must answer; so it is checked first.

    Raises:
        StaticCheckError: a graph that is not static.
        LimitError: weights that the precision cannot hold.
        ParityFailedError: the outputs of the eager model are not finite.
        OSError: a file cannot be written.
    """
    reference = _reference(subject, plan, images, options, progress)
    writer = _Graphs(subject, options, directory, progress)
    written = writer.write(MODEL_NAME, "model", plan, reference)
    files, notes = written.files, written.notes
    remove(subject.model)
    gc.collect()  # the graph refers to itself and holds its weights
    if options.dense:
        dense = subject.plan(make_settings("dense"))
        apply(subject.model, dense)
        twin = writer.write(DENSE_NAME, "dense", dense, reference)
        remove(subject.model)
        files, notes = files | twin.files, [*notes, *twin.notes]
    files[REFERENCE_NAME] = _write_reference(reference, directory)
    return Draft(directory, _manifest(subject, plan, images, options, Written(files, written.nodes, notes)), reference)


def _reference(
    subject: Subject, plan: Plan, images: ReferenceImages, options: ExportOptions, progress: Progress
) -> Reference:
    """Run the eager model, dense and then patched with the plan, as which it is left."""
    progress("computing the reference")
    given = (subject.model, images, subject.preprocessing)
    dense = dense_outputs(*given, subject.outputs) if options.dense else None
    apply(subject.model, plan, restore=subject.outputs.is_dense)
    share = _share("computing the reference", progress)
    reference = make_reference(*given, share, subject.outputs)
    reference = replace(reference, dense_outputs=dense)
    check_reference(reference, f"{subject.built.source}, {subject.built.detail}")
    return reference


def _share(task: str, progress: Progress) -> Callable[[float], None]:
    return lambda share: progress(task, share)


def _write_reference(reference: Reference, directory: Path) -> FileEntry:
    path = directory / REFERENCE_NAME
    write_reference(reference, path)
    return FileEntry("reference", file_sha256(path), path.stat().st_size)


@dataclass(frozen=True)
class Written:
    """Written graphs.

    Attributes:
        files: entries by file name.
        nodes: ONNX nodes of each layer; empty for a dense baseline.
        notes: remarks for users.
    """

    files: dict[str, FileEntry]
    nodes: list[int]
    notes: list[str]


@dataclass(frozen=True)
class _Drawn:
    """A traced and simplified graph, the layer of each tensor that a module made, and remarks for users."""

    graph: ir.Model
    layers: dict[str, int | None]
    notes: list[str]


class _Graphs:
    """Traces, simplifies, checks and writes graphs."""

    def __init__(self, subject: Subject, options: ExportOptions, directory: Path, progress: Progress) -> None:
        self.subject, self.options, self.directory, self.progress = subject, options, directory, progress

    def write(self, name: str, role: str, plan: Plan, reference: Reference) -> Written:
        """Write the graph of the model as it is patched; the reference has its answers."""
        subject, options = self.subject, self.options
        self.progress(f"tracing {name}")
        pixels = (subject.preprocessing.mean, subject.preprocessing.std) if options.input == "uint8" else None
        traced = Traced(subject.model, options.trace, pixels, subject.outputs)
        sizes = (options.batch,) if isinstance(options.batch, int) else TRACED
        drawn = [self._drawn(name, role, traced, size, reference) for size in sizes]
        self.progress(f"checking {name}")
        graphs, layers, notes = [infer_shapes(each.graph) for each in drawn], drawn[0].layers, drawn[0].notes
        if role == "dense" or not options.dense:
            keep_float(self._one(graphs), self.directory / name, options.converted)
        graph = self._one([to_form(to_precision(each, options.converted), options.chosen_form) for each in graphs])
        check_static(graph, options.target)
        nodes = nodes_per_layer(graph, layers, len(plan.layers)) if role == "model" else []
        strip(graph)
        describe(graph, subject.built, plan.settings)
        what = (role, options.converted, plan.settings.name, plan.backbone, options.batch_range)
        return Written(write_graph(self.directory / name, graph, *what), nodes, notes)

    def _drawn(self, name: str, role: str, traced: Traced, images: int, reference: Reference) -> _Drawn:
        """Trace and simplify the graph for a number of images."""
        with without_collection():
            graph, layers = to_onnx(traced, images, self.options.opset)
        if not self.options.simplify:
            return _Drawn(graph, layers, [])
        self.progress(f"simplifying {name}")
        graph, note = simplify(graph, self._known(reference, traced.output_names, role, images))
        return _Drawn(graph, layers, [f"{name}: {note}"] if note else [])

    def _one(self, graphs: list[ir.Model]) -> ir.Model:
        """Return the one graph, or that of a range, which is made of two."""
        batches = self.options.batch_range
        return graphs[0] if batches is None else free_batch(graphs[0], graphs[1], batches.max)

    def _known(self, reference: Reference, names: list[str], role: str, batch: int) -> Known:
        answers = reference.dense_outputs if role == "dense" else reference.outputs
        assert answers is not None
        outputs = dict(answers)
        for name, layers in (("propagated", reference.propagated), ("received_by", reference.received_by)):
            if name in names and layers is not None:
                outputs[name] = np.concatenate(layers, axis=1)
        images = reference.images
        inputs = images if self.options.input == "uint8" else self.subject.preprocessing.normalise(images)
        return Known.of(inputs, outputs, batch)


def _manifest(
    subject: Subject, plan: Plan, images: ReferenceImages, options: ExportOptions, written: Written
) -> Manifest:
    built, recipe = subject.built, subject.built.recipe
    grid = list(plan.shape.grid)
    layers = zip(plan.layers, written.nodes, strict=True)
    chosen = recipe.choices(plan.asked or plan.settings)
    macs = {name: getattr(plan, name) for name in ("backbone", "dense", "embed", "head", "setup")}
    return Manifest(
        model=ModelInfo(
            recipe.name, recipe.title, recipe.timm, subject.classes, plan.shape.num_prefix, grid, subject.activation
        ),
        weights=WeightsInfo(built.source, built.detail, built.sha256, list(built.notes)),
        method=plan.settings.name,
        settings=plan.settings.described(),
        layers=[LayerEntry(nodes=nodes, **asdict(layer)) for layer, nodes in layers],
        macs=macs | {"method": plan.method_macs},
        outputs=subject.outputs.described(subject.model),
        preprocessing=subject.preprocessing,
        files=written.files,
        target=options.target,
        form=options.chosen_form,
        opset=options.opset,
        labels=subject.labels,
        label_ids=subject.label_ids,
        class_order=recipe.class_order or images.class_order,
        reference={"images": images.origin, "count": len(images.pixels)},
        tools=tool_versions(),
        notes=[*subject.notes, *chosen, *written.notes, *([images.note] if images.note else [])],
    )
