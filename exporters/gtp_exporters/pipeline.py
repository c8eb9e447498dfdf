"""The export: a model in, an artifact directory out."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gtp_exporters.calibrating import calibrate_on
from gtp_exporters.data_config import labels_of, preprocessing_of
from gtp_exporters.describe import describe, file_entry, strip, tool_versions
from gtp_exporters.directory import check_place, written_whole
from gtp_exporters.errors import LimitError
from gtp_exporters.graph_layers import nodes_per_layer
from gtp_exporters.limits import TARGETS, check_opset, check_settings
from gtp_exporters.pack import PackImages, dense_answers, folder_images, make_reference, synthetic_images
from gtp_exporters.precision import PRECISIONS, to_precision
from gtp_exporters.rewriting import split_key_transposes
from gtp_exporters.simplify import simplify
from gtp_exporters.static_check import check_static, infer_shapes
from gtp_exporters.tracing import Traced, to_onnx
from gtp_models.gtp.config import GTPConfig
from gtp_models.gtp.patch import remove
from gtp_models.heads import HEADS, gives_features, without_head
from gtp_models.macs import Cost, cost
from gtp_models.recipes import Recipe, load_recipe
from gtp_models.rivals import METHODS, apply_method, config_of
from gtp_models.schedules import make_schedule
from gtp_models.weights import BuiltModel, build_model
from gtp_runtime.images import find_images
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
INPUTS = ("float", "uint8")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to export.

    Attributes:
        batch: images a run, at least 1.
        opset: ONNX opset, 18 to 23.
        simplify: run onnxsim.
        dense: write the unpatched twin beside the model.
        trace: give the graph the output ``propagated``.
        target: "tensorrt" (the strictest), "onnxruntime" or "openvino".
        data: a folder of images for the parity pack; else the recipe's own, else synthetic ones.
        precision: "fp32", "fp16" or "bf16", written into the graphs; inputs and outputs stay float32.
        schedule: spend ``budget`` by a schedule (see ``gtp_models.schedules``) in place of the settings' ``num_prop``.
        budget: MACs of the backbone, or a share of the dense model's; those of the settings' ``num_prop`` without.
        calib_data: a folder of images to calibrate thresholds on, where the settings ask for it and hold no
            calibration; the recipe's own without.
        method: "gtp", or a rival: "dense", "drop", "prune", "mean", "tome" (see ``gtp_models.apply_method``).
        input: "float", preprocessed (B, 3, H, W) float32, or "uint8", (B, H, W, 3) pixels as cameras have them,
            normalised inside the graph.
        head: "keep" (``logits``), "none" (pooled ``features``, without the classifier), or "auto": features where the
            model has no classifier, which the notes then say.
    """

    batch: int = 1
    opset: int = 20
    simplify: bool = True
    dense: bool = True
    trace: bool = True
    target: str = "tensorrt"
    data: Path | None = None
    precision: str = "fp32"
    input: str = "float"
    method: str = "gtp"
    schedule: str | None = None
    budget: float | None = None
    calib_data: Path | None = None
    head: str = "auto"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise LimitError(f"batch {self.batch}: give at least 1")
        if self.target not in TARGETS:
            raise LimitError(f"no target is called {self.target!r}: choose one of {', '.join(TARGETS)}")
        if self.input not in INPUTS:
            raise LimitError(f"no input is called {self.input!r}: choose one of {', '.join(INPUTS)}")
        if self.method not in METHODS:
            raise LimitError(f"no method is called {self.method!r}: choose one of {', '.join(METHODS)}")
        if self.head not in HEADS:
            raise LimitError(f"no head is called {self.head!r}: choose one of {', '.join(HEADS)}")
        if self.precision not in PRECISIONS:
            raise LimitError(f"no precision is called {self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        if self.budget is not None and (not self.schedule or self.budget <= 0):
            raise LimitError(f"a budget of {self.budget} MACs: give more than 0, and a schedule to spend it (even)")
        check_opset(self.opset)


@dataclass(frozen=True)
class Exported:
    """What an export wrote: its directory, the manifest, and what people should know."""

    directory: Path
    manifest: Manifest
    notes: tuple[str, ...]


def export(
    model: str | Recipe,
    output: Path | str | None = None,
    *,
    config: GTPConfig | None = None,
    weights: str = "pretrained",
    img_size: tuple[int, int] | None = None,
    seed: int = 0,
    options: Options | None = None,
    progress: Progress = lambda text: None,
) -> Exported:
    """Export a model, patched with GTP, and its dense twin as static ONNX with all that a device needs.

    Args:
        model: a recipe, its name, ``timm:NAME`` or a recipe file.
        output: the artifact directory; ``build/NAME`` without. An earlier export there is replaced.
        config: GTP settings, the recipe's without (for ``timm:NAME`` those that ``load_recipe`` chooses).
        weights: "pretrained", a path, "random" or "auto" (see ``gtp_models.build_model``).
        img_size: (height, width) in pixels, the model's own without.
        seed: of random weights.
        options: how to export.
        progress: told in words what is being done.

    Raises:
        LimitError: settings that the target cannot build; before anything is traced.
        StaticCheckError: a graph that is not static.
        OutputError: a place that cannot be written.
        ModelsError, GTPRuntimeError: from models, weights and images.
    """
    recipe = load_recipe(model, img_size) if isinstance(model, str) else model
    options = options or Options()
    config = config_of(options.method, config or recipe.config())
    directory = Path(output) if output else Path("build") / recipe.name
    check_place(directory)  # before anything takes time
    if options.data is not None:
        find_images(options.data)
    progress(f"building {recipe.timm}")
    built = build_model(without_head(recipe) if options.head == "none" else recipe, weights, img_size, seed)
    features, note = gives_features(built.model, recipe.timm, options.head)
    costs = cost(built.model, config, options.method)
    if options.schedule:
        config = make_schedule(built.model, config, options.schedule, options.budget or costs.backbone, options.method)
        costs = cost(built.model, config, options.method)
    if config.threshold == "calibrated" and config.sparsity < 1 and config.calibration is None:
        progress("calibrating thresholds")
        config = calibrate_on(built.model, config, options.calib_data or recipe.calibration)
    notes = [*([note] if note else []), *recipe.choices(config)]
    check_settings(config, [layer.tokens_in for layer in costs.layers], options.target)
    with written_whole(directory) as temporary:
        run = _Run(built, config, options, costs, temporary, progress, features, notes)
        manifest = run.write()
    return Exported(directory, manifest, tuple(run.notes))


class _Run:
    """One export into a directory of its own."""

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
        files = {MODEL_NAME: self._write_graph(MODEL_NAME, "model", self.options.method, self.costs.backbone)}
        if self.options.dense:
            files[DENSE_NAME] = self._write_graph(DENSE_NAME, "dense", "dense", self.costs.dense)
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

    def _write_graph(self, name: str, role: str, method: str, macs: int) -> FileEntry:
        self.progress(f"tracing {name}")
        apply_method(self.built.model, method, self.config)
        pixels = (self.preprocessing.mean, self.preprocessing.std) if self.options.input == "uint8" else None
        traced = Traced(self.built.model, self.options.trace, pixels, self.output)
        proto, layers = to_onnx(traced, self.options.batch, self.options.opset)
        if self.options.simplify:
            self.progress(f"simplifying {name}")
            proto, note = simplify(proto)
            self.notes += [f"{name}: {note}"] if note else []
            proto = split_key_transposes(proto)
        self.progress(f"checking {name}")
        proto = to_precision(infer_shapes(proto), self.options.precision)
        check_static(proto, self.options.target)
        if role == "model":
            self.layer_nodes = nodes_per_layer(proto, layers, len(self.costs.layers))
        strip(proto)
        describe(proto, self.built, self.config, method)
        return file_entry(self.directory / name, proto, role, method, macs)

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
            LayerEntry(num_prop=amount, nodes=nodes, **asdict(layer))
            for layer, amount, nodes in zip(costs.layers, schedule, self.layer_nodes, strict=True)
        ]
        macs = {name: getattr(costs, name) for name in ("backbone", "gtp", "dense", "embed", "head", "graph")}
        return Manifest(
            model=info,
            weights=WeightsInfo(self.built.source, self.built.detail, self.built.sha256, list(self.built.notes)),
            gtp=self.config.to_dict(),
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
