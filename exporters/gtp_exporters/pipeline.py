"""The export, from a model to an artifact directory.

recipe → model → settings → plan → graphs, reference and manifest in a staging folder → proven → put in place.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from gtp_exporters.artifacts import draft
from gtp_exporters.draft import Draft
from gtp_exporters.fitting import Fitted, check_fits, default_settings, fit_settings, fitting_images
from gtp_exporters.measuring.latency import measure_costs
from gtp_exporters.options import ExportOptions, check_limits
from gtp_exporters.proof import Proof, check_proof, prove
from gtp_exporters.reference import ReferenceImages
from gtp_exporters.report import add_report
from gtp_exporters.subject import Subject, calibrated, describe, make_subject, reference_images, take
from gtp_models.errors import ConfigError
from gtp_models.methods.settings import Settings
from gtp_models.recipes import Recipe, load_recipe
from gtp_models.schedules import is_fitted
from gtp_models.weights import BuiltModel
from gtp_runtime.backends import find_backend, make_options
from gtp_runtime.images.folders import find_images
from gtp_runtime.manifest import MODEL_NAME, Manifest, read_manifest, write_manifest
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.transaction import staged


@dataclass(frozen=True)
class Exported:
    """The result of an export: its directory, its manifest, and the proof (None if the check was skipped)."""

    directory: Path
    manifest: Manifest
    proof: Proof | None


def export(
    model: str | Recipe | nn.Module,
    output: Path | str | None = None,
    *,
    settings: Settings | None = None,
    weights: str = "pretrained",
    img_size: tuple[int, int] | None = None,
    seed: int = 0,
    options: ExportOptions | None = None,
    check: bool = True,
    report: bool = True,
    threads: int = 1,
    progress: Progress = quiet,
) -> Exported:
    """Export a patched model and its dense baseline as static ONNX, with all files that the runtime needs.

    The files are written to a staging folder, validated and timed. Only then do they replace an earlier export.

    Args:
        model: a recipe, its name, ``timm:NAME``, a recipe file, or a timm model in hand, which stays as it is: its
            ``pretrained_cfg`` says how images are prepared, and a patched one is exported with its settings.
        output: the artifact directory (default: ``build/NAME``). An earlier export there is replaced; other files
            there are an error and stay unchanged.
        settings: settings of any method (default: the recipe's, for ``timm:NAME`` those that ``load_recipe`` chooses;
            their schedule is fitted where there are calibration images and the recipe names no layers). The schedule
            "fitted" is measured on the calibration images, of which those of the reference are left out.
        weights: "pretrained", a path, "random" or "auto" (see ``gtp_models.build_model``).
        img_size: (height, width) in pixels (default: the model's own).
        seed: seed of random weights, and of a fitted schedule.
        options: export options.
        check: validate and time the files with ONNX Runtime.
        report: write ``report.html``, a page that shows all this.
        threads: threads for the check; 0 is all.
        progress: called with the current task.

    Raises:
        TypeError: ``model`` is something else.
        ConfigError: a module with ``weights`` or ``img_size``.
        LimitError: the target cannot build these settings. It is raised before anything is traced.
        StaticCheckError: a graph is not static.
        ParityFailedError: the outputs of the graphs differ from eager PyTorch's, or these are not finite. The earlier
            export is unchanged.
        QuantizationFailedError: the outputs of int8 graphs differ too much from float32's. The earlier export is
            unchanged.
        OutputError: the directory cannot be written, or contains other files.
        ModelsError, GTPRuntimeError: errors of models, weights, images and ``threads``.
    """
    if not isinstance(model, str | Recipe | nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}: give the name of a recipe, timm:NAME, a recipe file, a Recipe or a "
            "timm model"
        )
    check_export_threads(threads)
    options = options or ExportOptions()
    held: BuiltModel | None = None
    if isinstance(model, nn.Module):
        _check_module_options(weights, img_size)
        held, own = take(model, options.output)
        recipe, settings = held.recipe, settings or own
    else:
        recipe = load_recipe(model, img_size) if isinstance(model, str) else model.sized(img_size)
    directory = Path(output) if output else Path("build") / recipe.name

    def make() -> Subject:
        progress(f"building {recipe.timm}")
        return make_subject(recipe, weights, seed, options) if held is None else describe(held, options)

    settings = settings or default_settings(recipe, options)
    return export_subject(make, recipe, directory, settings, options, seed, check, report, threads, progress)


def check_export_threads(threads: int) -> None:
    """Raise ``InputError`` for threads that the check of an export cannot have, before anything is done."""
    make_options(find_backend(Path(MODEL_NAME)), {"threads": threads})


def export_subject(
    make: Callable[[], Subject],
    recipe: Recipe,
    directory: Path,
    settings: Settings,
    options: ExportOptions,
    seed: int,
    check: bool,
    report: bool,
    threads: int,
    progress: Progress,
) -> Exported:
    """Write, prove and put in place what ``make`` describes; arguments and errors as of ``export``."""
    with staged(directory) as staging:
        if options.data is not None:
            find_images(options.data)  # fail early
        check_fits(settings, options)
        made = _draft(make, seed, settings, options, staging.path, progress)
        gc.collect()  # the graphs refer to themselves and hold the weights, which the proof loads anew
        if options.calibrated:
            made = _quantized(made, options, recipe, threads, check, progress)
        proof = prove(made, threads, progress) if check else None
        if proof is not None:
            check_proof(proof, made, directory, threads)
            made = made.with_results(proof.results)
        if report:
            progress("writing the report")
            made = add_report(made)
        write_manifest(made.manifest, staging.path)
        staging.commit()
    return Exported(directory, read_manifest(directory), proof)


def _check_module_options(weights: str, img_size: tuple[int, int] | None) -> None:
    if weights != "pretrained" or img_size is not None:
        raise ConfigError("a module has its own weights and image size: leave weights and img_size out")


def _draft(
    make: Callable[[], Subject],
    seed: int,
    settings: Settings,
    options: ExportOptions,
    place: Path,
    progress: Progress,
) -> Draft:
    """Write graphs and reference; the eager model is gone afterwards, and its memory is free for the proof."""
    subject = make()
    images = reference_images(subject, options)
    fitted = _fitted(subject, settings, images, options, seed, progress) if is_fitted(settings.schedule) else None
    settings = fitted.settings if fitted else settings
    shared = options.calibrated or fitted is not None
    settings = calibrated(subject, settings, options.calib_data, progress, shared=shared)
    plan = subject.plan(settings)
    check_limits(plan, options.target)
    made = draft(subject, plan, images, options, place, progress)
    return replace(made, manifest=replace(made.manifest, fitting=fitted.info)) if fitted else made


def _fitted(
    subject: Subject,
    settings: Settings,
    judges: ReferenceImages,
    options: ExportOptions,
    seed: int,
    progress: Progress,
) -> Fitted:
    """Fit the schedule on the calibration images, but those of the reference."""
    progress("reading images to fit on")
    own, folder = subject.built.recipe.calibration, options.calib_data
    images = fitting_images(subject, settings, folder or own, judges.pixels, is_own=folder is None)
    costs = None if options.latency is None else measure_costs(subject, settings, options, progress)
    given = {"latency": options.latency, "seconds": options.fit_seconds}
    return fit_settings(subject, settings, images, **given, costs=costs, seed=seed, progress=progress)


def _quantized(
    made: Draft, options: ExportOptions, recipe: Recipe, threads: int, check: bool, progress: Progress
) -> Draft:
    from gtp_exporters.quantizing.options import QuantizeOptions
    from gtp_exporters.quantizing.run import quantize_graphs

    folder = options.calib_data or recipe.calibration
    how = QuantizeOptions(options.target, folder, gate=check, threads=threads)
    return replace(made, manifest=quantize_graphs(made, how, progress).listed(made.manifest))
