"""The files of an export: graphs, parity pack and manifest."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gtp_exporters.data_config import labels_of, preprocessing_of
from gtp_exporters.describe import describe, strip, tool_versions, write_graph
from gtp_exporters.graph_layers import nodes_per_layer
from gtp_exporters.options import Options
from gtp_exporters.pack import PackImages, dense_answers, folder_images, make_reference, synthetic_images
from gtp_exporters.precision import to_precision
from gtp_exporters.simplify import simplify
from gtp_exporters.static_check import check_static, infer_shapes
from gtp_exporters.tracing import Traced, to_onnx
from gtp_models.gtp.config import GTPConfig
from gtp_models.gtp.patch import remove
from gtp_models.macs import Cost
from gtp_models.rivals import apply_method
from gtp_models.weights import BuiltModel
from gtp_runtime.manifest import (
    REFERENCE_NAME,
    FileEntry,
    LayerEntry,
    Manifest,
    ModelInfo,
    WeightsInfo,
    file_sha256,
    write_manifest,
)
from gtp_runtime.preprocessing import Preprocessing
from gtp_runtime.reference import write_reference

MODEL_NAME = "model.onnx"
DENSE_NAME = "dense.onnx"

Progress = Callable[[str], None]


class Artifacts:
    """The files of one export, into a directory of its own."""

    def __init__(
        self,
        built: BuiltModel,
        config: GTPConfig,
        options: Options,
        costs: Cost,
        directory: Path,
        progress: Progress,
        features: bool,
        notes: list[str],
    ) -> None:
        self.built, self.config, self.options = built, config, options
        self.costs, self.directory, self.progress = costs, directory, progress
        self.notes = [*built.notes, *notes]
        self.preprocessing: Preprocessing = preprocessing_of(built.model)
        self.classes = 0 if features else built.model.num_classes
        self.output = "features" if features else "logits"
        self.labels, self.label_ids = labels_of(built.recipe, self.classes)
        self.layer_nodes: list[int] = []

    def write(self) -> Manifest:
        """Write every file, the manifest last, and return it."""
        images = self._images()
        files = self._write_graph(MODEL_NAME, "model", self.options.method, self.costs.backbone)
        if self.options.dense:
            files |= self._write_graph(DENSE_NAME, "dense", "dense", self.costs.dense)
        files[REFERENCE_NAME] = self._write_reference(images)
        manifest = self._manifest(files, images)
        write_manifest(manifest, self.directory)
        return manifest

    def _images(self) -> PackImages:
        own = self.built.recipe.images
        known = (self.preprocessing, self.labels, self.label_ids, self.classes)
        if self.options.data is not None:
            return folder_images(self.options.data, *known)
        if own is not None:
            return folder_images(own, *known, limit=None, origin="the recipe's own")
        return synthetic_images(self.preprocessing.crop)

    def _write_graph(self, name: str, role: str, method: str, macs: int) -> dict[str, FileEntry]:
        self.progress(f"tracing {name}")
        apply_method(self.built.model, method, self.config)
        pixels = (self.preprocessing.mean, self.preprocessing.std) if self.options.input == "uint8" else None
        traced = Traced(self.built.model, self.options.trace, pixels, self.output)
        graph, layers = to_onnx(traced, self.options.batch, self.options.opset)
        if self.options.simplify:
            self.progress(f"simplifying {name}")
            graph, note = simplify(graph)
            self.notes += [f"{name}: {note}"] if note else []
        self.progress(f"checking {name}")
        graph = to_precision(infer_shapes(graph), self.options.precision)
        check_static(graph, self.options.target)
        if role == "model":
            self.layer_nodes = nodes_per_layer(graph, layers, len(self.costs.layers))
        strip(graph)
        describe(graph, self.built, self.config, method)
        return write_graph(self.directory / name, graph, role, method, macs)

    def _write_reference(self, images: PackImages) -> FileEntry:
        count = len(images.pixels)

        def report(share: float) -> None:
            self.progress(f"computing the reference: {round(share * count)} of {count} images")

        report(0)
        apply_method(self.built.model, self.options.method, self.config)
        reference = make_reference(self.built.model, images, self.preprocessing, report, self.output)
        if self.options.dense:
            dense = dense_answers(remove(self.built.model), images, self.preprocessing)
            reference = replace(reference, dense_answers=dense)
        path = self.directory / REFERENCE_NAME
        write_reference(reference, path)
        return FileEntry("reference", file_sha256(path), path.stat().st_size)

    def _manifest(self, files: dict[str, FileEntry], images: PackImages) -> Manifest:
        model, recipe, costs = self.built.model, self.built.recipe, self.costs
        info = ModelInfo(
            recipe.name,
            recipe.title,
            recipe.timm,
            self.classes,
            model.num_prefix_tokens,
            list(model.patch_embed.grid_size),
        )
        schedule = self.config.schedule(len(costs.layers))
        layers = [
            LayerEntry(layer.tokens_in, layer.tokens_out, amount, layer.macs, layer.gtp_macs, nodes)
            for layer, amount, nodes in zip(costs.layers, schedule, self.layer_nodes, strict=True)
        ]
        macs = {name: getattr(costs, name) for name in ("backbone", "dense", "embed", "head")}
        macs |= {"method": costs.gtp, "setup": costs.graph}
        return Manifest(
            model=info,
            weights=WeightsInfo(self.built.source, self.built.detail, self.built.sha256, list(self.built.notes)),
            method=self.options.method,
            settings=self.config.to_dict(),
            layers=layers,
            macs=macs,
            preprocessing=self.preprocessing,
            files=files,
            target=self.options.target,
            opset=self.options.opset,
            labels=self.labels,
            label_ids=self.label_ids,
            reference={"images": images.origin, "count": len(images.pixels)},
            tools=tool_versions(),
            notes=self.notes,
        )
