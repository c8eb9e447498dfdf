"""The files of candidates: exported once each, into a working folder, from a model that is built once.

Backends that run no ONNX files get what the graph is converted to, as ``convert`` makes it: from the same ONNX file for
all of them. A converter may write a graph wrongly, in silence: its files are held to the answers of eager PyTorch.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from gtp_exporters.artifacts import draft
from gtp_exporters.converting.formats import FORMATS
from gtp_exporters.converting.int8 import Calibration, check_gate
from gtp_exporters.converting.run import check_written, convert_graphs, file_name
from gtp_exporters.draft import Draft, linked
from gtp_exporters.errors import ConversionError
from gtp_exporters.measuring.candidate import PLAIN, Candidate, Running
from gtp_exporters.options import ExportOptions, check_limits
from gtp_exporters.outputs import Outputs, end_at
from gtp_exporters.proof import share_alike
from gtp_exporters.quantizing.options import QuantizeOptions
from gtp_exporters.quantizing.run import quantize_graphs
from gtp_exporters.reference import synthetic_images
from gtp_exporters.subject import Subject, calibrate_on, make_subject, reference_images
from gtp_models.errors import WeightsError
from gtp_models.heads import DENSE, HEADLESS, without_head
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.settings import Settings
from gtp_models.plan import Plan, model_shape
from gtp_models.recipes import Recipe
from gtp_models.weights import outline
from gtp_runtime.manifest import (
    MODEL_NAME,
    REFERENCE_NAME,
    Manifest,
    ModelInfo,
    WeightsInfo,
    find_graph,
    read_manifest,
    write_manifest,
)
from gtp_runtime.messages import Progress, option_words, quiet
from gtp_runtime.parity import limits_of
from gtp_runtime.reference import read_reference

NEW = "new"  # the folder of an export that is not complete


@dataclass(frozen=True)
class Source:
    """What a model is made of: a recipe, and ``weights`` and ``seed`` as ``gtp_models.build_model`` takes them.

    Attributes:
        sha256: that the weights must have, wherever they are read; "" asks for none.
        output, layers: what the model gives, as ``ExportOptions`` takes them.
        taken: a model that is built already, a whole module; None builds the recipe's.
    """

    recipe: Recipe
    weights: str = "pretrained"
    seed: int = 0
    sha256: str = field(default="", compare=False)
    output: str = "auto"
    layers: tuple[int, ...] = ()
    taken: Subject | None = field(default=None, compare=False, repr=False)

    @property
    def gives(self) -> str:
        """What methods and schedules are chosen by: a whole module may read every patch, as of "map"."""
        return self.output if self.taken is None else DENSE[-1]

    @property
    def options(self) -> ExportOptions:
        """Options of an export that say what the model gives. Raises ``LimitError`` for what cannot be."""
        return ExportOptions(output=self.output, layers=self.layers)

    def outline(self) -> Any:
        """Return the model without weights, up to its last output. Raises as ``gtp_models.weights.outline``."""
        if self.taken is not None:
            return self.taken.model
        model = outline(without_head(self.recipe) if self.output in HEADLESS else self.recipe)
        end_at(model, Outputs(self.options.output, self.layers))
        return model


def output_words(output: str, layers: tuple[int, ...]) -> list[str]:
    """Return the options of ``gtp-export export`` that say what the model gives."""
    return option_words(output=None if output == "auto" else output, layers=",".join(map(str, layers)) or None)


class _Built:
    """The model that this process keeps."""

    source: Source | None = None
    subject: Any = None


def subject_of(source: Source) -> Subject:
    """Return the model of a source; a process keeps the last one.

    Raises:
        WeightsError: its weights are others than those that are meant.
        ModelsError: it cannot be built.
    """
    if source.taken is not None:
        return source.taken
    if _Built.source != source:
        forget()
        subject = make_subject(source.recipe, source.weights, source.seed, source.options)
        if source.sha256 and subject.built.sha256 != source.sha256:
            raise WeightsError(f"the weights of {source.recipe.name} are others here than where the command runs")
        _Built.source, _Built.subject = source, subject
    kept: Subject = _Built.subject
    return kept


def forget() -> None:
    """Forget the model: files may have changed since."""
    _Built.source = _Built.subject = None


@dataclass
class Graphs:
    """Exports candidates on demand; a graph that is there is not made again.

    Attributes:
        source: the model.
        place: the folder of the graphs, which is ours; what it holds is of this model.
        calib_data: images that a candidate is calibrated on if it needs it; None are the recipe's own.
        threads: CPU threads of what int8 is judged by, 0 for all.
        is_gated: whether an int8 graph must pass its gate.
        progress: told what is being done.
    """

    source: Source
    place: Path
    calib_data: Path | None = None
    threads: int = 1
    is_gated: bool = False
    progress: Progress = quiet

    @property
    def subject(self) -> Subject:
        """The model with its inputs and outputs. Raises as ``subject_of``."""
        return subject_of(self.source)

    @property
    def model(self) -> Any:
        """The timm model."""
        return self.subject.model

    @property
    def calibration(self) -> Path | None:
        """The folder that candidates are calibrated on."""
        return self.calib_data or self.source.recipe.calibration

    def candidate(self, name: str, settings: Settings, running: Running, batch: int = 1) -> Candidate:
        """Return a candidate on this model.

        Raises:
            ConfigError: settings that do not fit it.
        """
        return Candidate(name, self.subject.plan(settings), running, batch)

    def graph(self, candidate: Candidate) -> Path:
        """Return the file of a candidate.

        Raises:
            LimitError, StaticCheckError, ImageError, QuantizationFailedError: as ``export``.
            MissingPackageError, ConversionError: as ``convert``; a file that answers otherwise is such an error too.
        """
        running, directory = candidate.running, self._directory(candidate)
        if not directory.exists():
            made = self._source(candidate)
            new = self.place / NEW
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            self._export(candidate, new, made)
            new.rename(directory)
        if running.format:
            return directory / file_name(MODEL_NAME, running.format, running.written)
        return find_graph(directory, running.written)

    def remove(self, candidates: Iterable[Candidate]) -> None:
        """Remove the files of candidates, to make room on the disk."""
        for candidate in candidates:
            for one in (candidate, *([candidate.unconverted] if candidate.running.format else [])):
                shutil.rmtree(self._directory(one), ignore_errors=True)

    def _directory(self, candidate: Candidate) -> Path:
        return self.place / sha256(candidate.graph_key.encode()).hexdigest()[:16]

    def _source(self, candidate: Candidate) -> Path | None:
        """Return the folder of the ONNX file that a candidate's is converted from; None where it has its own: int8
        needs images to be judged on.
        """
        running = candidate.running
        if not running.format:
            return None
        check_written(running.format, running.written)
        FORMATS[running.format].ready(self.progress)
        return None if running.is_calibrated else self.graph(candidate.unconverted).parent

    def _export(self, candidate: Candidate, place: Path, source: Path | None) -> None:
        running = candidate.running

        def tell(task: str, share: float | None = None) -> None:  # noqa: ARG001
            self.progress(f"exporting {candidate.label}: {task}")  # a share is one of the images

        made = self._draft(candidate, place, tell) if source is None else _again(source, place)
        manifest = made.manifest
        if running.format:
            manifest = self._converted(made, candidate, tell)
        elif running.is_calibrated:
            given = QuantizeOptions(running.target, self.calibration, gate=self.is_gated, threads=self.threads)
            manifest = quantize_graphs(made, given, tell).listed(manifest)
        removed = made.graphs if manifest is not made.manifest else []
        write_manifest(_without(removed, manifest, place), place)

    def _draft(self, candidate: Candidate, place: Path, tell: Progress) -> Draft:
        """Write the graph of a candidate, in float32 where another format or int8 is made of it."""
        subject, running = self.subject, candidate.running
        options = replace(self.source.options, batch=candidate.batch, dense=False, trace=False)
        options = replace(options, target=running.target, precision=PLAIN if running.format else running.written)
        plan = self._calibrated(candidate, tell)
        check_limits(plan, running.target)
        crop = subject.preprocessing.crop
        images = reference_images(subject, options) if running.is_calibrated else synthetic_images(crop)
        return draft(subject, plan, images, options, place, tell)

    def _converted(self, made: Draft, candidate: Candidate, tell: Progress) -> Manifest:
        """Write the file of a candidate beside its graph; return the manifest with it."""
        running, backend = candidate.running, candidate.running.backend
        images = Calibration.of(made, self.calibration, None) if running.is_calibrated else None
        if images is not None:
            _check_converter(made, running, self.threads, tell)
        files = convert_graphs(made, made.graphs, running.format, running.written, tell, images=images)
        made = made.with_files(files)
        if images is not None and self.is_gated:
            check_gate(made, list(files), images, backend, self.threads, tell)
        if images is None:
            tell("validating")
            for name in files:
                _check_answers(made, name, backend, self.threads)
        return made.manifest

    def _calibrated(self, candidate: Candidate, progress: Progress) -> Plan:
        """Return the plan, with thresholds that are measured on images where they are to be."""
        settings = candidate.settings
        if not settings.needs_calibration:
            return candidate.plan
        assert isinstance(settings, GTPConfig)
        switches = self.source.recipe.switches
        return self.subject.plan(calibrate_on(self.model, settings, self.calibration, progress, switches=switches))


def _again(source: Path, place: Path) -> Draft:
    """Return an export that was written, in another folder."""
    linked(source, place)
    return Draft(place, read_manifest(place), read_reference(place / REFERENCE_NAME))


def _check_converter(made: Draft, running: Running, threads: int, tell: Progress) -> None:
    """Raise ``ConversionError`` where a converter writes a graph wrongly in float32: in int8 rounding hides it."""
    files = convert_graphs(made, made.graphs, running.format, PLAIN, tell)
    tell("validating")
    for name in files:
        _check_answers(made.with_files(files), name, running.backend, threads)
        (made.directory / name).unlink()


def _check_answers(made: Draft, name: str, backend: str, threads: int) -> None:
    """Raise ``ConversionError`` where a file does not answer as eager PyTorch does, near-ties left aside."""
    share, least = share_alike(made, name, backend, threads), limits_of(made.manifest.entry(name).precision).kept
    if share < least:
        raise ConversionError(
            f"as a {backend} file it answers as eager PyTorch on {share:.0%} of the images, limit {least:.0%}: the "
            "converter writes this graph wrongly, so it is not measured"
        )


def _without(names: Iterable[str], manifest: Manifest, place: Path) -> Manifest:
    """Remove graphs that nothing needs any more; return the manifest without them."""
    files = dict(manifest.files)
    for name in names:
        data = files.pop(name).external_data
        for file in filter(None, (name, data)):
            files.pop(file, None)
            (place / file).unlink()
    return replace(manifest, files=files)


def manifest_of(subject: Subject) -> Manifest:
    """Return the manifest of a model of which nothing is exported yet: classes, outputs, weights, preprocessing."""
    built, shape = subject.built, model_shape(subject.model)
    model = ModelInfo(
        built.recipe.name,
        built.recipe.title,
        built.recipe.timm,
        subject.classes,
        shape.num_prefix,
        list(shape.grid),
        subject.activation,
    )
    weights = WeightsInfo(built.source, built.detail, built.sha256)
    names: dict[str, Any] = {
        "labels": subject.labels,
        "label_ids": subject.label_ids,
        "class_order": built.recipe.class_order,
    }
    names["outputs"] = subject.outputs.described(subject.model)
    return Manifest(model, weights, "dense", {}, [], {}, subject.preprocessing, {}, **names)
