"""``gtp-export export``: from a model to an artifact directory, validated and timed."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gtp_export import console, options, values
from gtp_export.model_options import ModelOptions, takes_model_options
from gtp_export.running import MEASURED, THREADS
from gtp_exporters.options import FORMS, INPUTS
from gtp_models.heads import OUTPUTS
from gtp_models.schedules import is_fitted
from gtp_runtime.errors import GATE_FAILED
from gtp_runtime.images.class_folders import ORDERS
from gtp_runtime.messages import option_words
from gtp_runtime.precisions import PRECISIONS, TARGETS, WITHOUT_SORT

if TYPE_CHECKING:
    from gtp_exporters import Exported, ParityFailedError, QuantizationFailedError
    from gtp_exporters.proof import Proof

_RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


ARTIFACTS, IMAGES, GRAPHS, CHECKS = "The artifact directory", "The model and its images", "The graphs", "The check"


def _option(panel: str, text: str, *flags: str, **given: Any) -> Any:
    return options.option(text, *flags, rich_help_panel=panel, show_default=True, **given)


@takes_model_options("--labels")
def export(
    model: options.Model,
    directory: Annotated[
        Path | None, _option(ARTIFACTS, "The artifact directory (default: build/MODEL).", "-o", "--out")
    ] = None,
    report: Annotated[bool, _option(ARTIFACTS, "Write report.html, a page that shows the export.")] = True,
    dense: Annotated[bool, _option(ARTIFACTS, "Write the dense baseline, dense.onnx, for comparison.")] = True,
    weights: Annotated[str, _option(IMAGES, options.WEIGHTS_HELP, names=options.weights)] = "pretrained",
    img_size: Annotated[Any, _option(IMAGES, options.SIZE_HELP, parser=values.image_size, metavar="SIZE")] = None,
    data: Annotated[
        Path | None,
        _option(IMAGES, "A folder of images for the reference (default: the recipe's, else synthetic ones).", "--data"),
    ] = None,
    class_order: Annotated[
        str | None,
        _option(
            IMAGES,
            "The order of class folders in training, stored in the manifest: timm (the last folder of each path, 2 "
            "before 10) or torchvision (the first folder, 10 before 2). Default: timm; class names decide first.",
            **options.one_of(ORDERS),
        ),
    ] = None,
    calib_data: Annotated[
        Path | None,
        _option(
            IMAGES,
            "A folder of images, 32 or more: on them the schedule is fitted (without --schedule), thresholds and int8 "
            "are calibrated (default: the recipe's).",
        ),
    ] = None,
    fit_seconds: Annotated[
        Any,
        _option(
            IMAGES,
            "Time after which the fitted schedule is not improved further: 90s, 5m (default: no limit).",
            parser=values.positive_seconds,
            metavar="TIME",
        ),
    ] = None,
    output: Annotated[
        str,
        _option(
            IMAGES,
            options.OUTPUT_HELP,
            **options.one_of(OUTPUTS),
        ),
    ] = "auto",
    layers: Annotated[
        Any,
        _option(
            IMAGES,
            options.LAYERS_HELP,
            parser=values.layers,
            metavar="LAYERS",
        ),
    ] = None,
    seed: Annotated[
        int | None, _option(IMAGES, "Seed of random weights, and of the search of a fitted schedule (default: 0).")
    ] = None,
    batch: Annotated[
        Any,
        _option(
            GRAPHS,
            "Images per run: 8; or a range, 1..16: one graph that takes any number in it (default: 1).",
            "-b",
            "--batch",
            parser=values.batch,
            metavar="N|A..B",
        ),
    ] = 1,
    target: Annotated[
        str,
        _option(
            GRAPHS,
            "The runtime whose limits are checked. Engines are built from graphs for tensorrt, the strictest. "
            f"{', '.join(WITHOUT_SORT)} take --form ranks.",
            **options.one_of((*TARGETS, *WITHOUT_SORT)),
        ),
    ] = "onnxruntime",
    form: Annotated[
        str | None,
        _option(
            GRAPHS,
            "How tokens are chosen and moved: sort, by TopK and Gather; ranks, by comparing all pairs and products "
            "with 0 and 1; ranks-arithmetic, the same without comparisons (default: what --target takes).",
            **options.one_of(FORMS),
        ),
    ] = None,
    precision: Annotated[
        str,
        _option(
            GRAPHS,
            f"{', '.join(PRECISIONS)}. Inputs stay float32. int8 graphs are for --target, calibrated on --calib-data, "
            "and added to the fp32 ones.",
            names=lambda: PRECISIONS,
        ),
    ] = "fp32",
    input_: Annotated[
        str,
        _option(
            GRAPHS,
            "float: (B,3,H,W); or uint8: (B,H,W,3) pixels, normalised in the graph.",
            "--input",
            **options.one_of(INPUTS),
        ),
    ] = "float",
    opset: Annotated[int, _option(GRAPHS, "ONNX opset.")] = 20,
    simplify: Annotated[bool, _option(GRAPHS, "Simplify the graphs with onnxsim.")] = True,
    trace: Annotated[
        bool,
        _option(GRAPHS, "Add outputs with the ids of the removed tokens and, if merged, of their receivers."),
    ] = True,
    check: Annotated[bool, _option(CHECKS, "Validate and time the export before it replaces an earlier one.")] = True,
    threads: Annotated[int | None, _option(CHECKS, THREADS, min=0)] = None,
    method: options.Method = "gtp",
    preset: options.Preset = None,
    num_prop: options.NumProp = None,
    schedule: options.Schedule = None,
    macs: options.Macs = None,
    keep: options.Keep = None,
    latency: Annotated[
        float | None,
        options.option(
            "Instead of --keep, for a fitted schedule: time as a share of the dense model's, measured on --target.",
            rich_help_panel=options.METHOD_PANEL,
        ),
    ] = None,
    sparsity: options.Sparsity = None,
    alpha: options.Alpha = None,
    num_neighbours: options.NumNeighbours = None,
    token_scale: options.TokenScale = None,
    selection: options.Selection = None,
    propagation: options.Propagation = None,
    graph: options.Graph = None,
    threshold: options.Threshold = None,
    *,
    model_options: ModelOptions,
    json: options.Json = False,
) -> None:
    """Export MODEL with token reduction to static ONNX, with all files that the runtime needs."""
    if threads is not None and not check:
        raise typer.BadParameter("--threads has no effect with --no-check: leave one out")
    if schedule is not None:
        _check_seed(seed, weights, schedule)
    if latency is not None and any(value is not None for value in (num_prop, macs, keep)):
        raise typer.BadParameter("--latency is a budget as --keep, --macs and --num-prop are: give one of them")
    from gtp_exporters import ExportOptions

    checked = ExportOptions(  # before torch is loaded
        batch=batch,
        opset=opset,
        simplify=simplify,
        dense=dense,
        trace=trace,
        target=target,
        data=data,
        precision=precision,
        input=input_,
        calib_data=calib_data,
        output=output,
        layers=layers or (),
        latency=latency,
        fit_seconds=fit_seconds,
        form=form,
    )
    given: dict[str, Any] = {
        "num_prop": num_prop,
        "schedule": schedule,
        "macs": macs,
        "keep": keep,
        "sparsity": sparsity,
        "alpha": alpha,
        "num_neighbours": num_neighbours,
        "token_scale": token_scale,
        "selection": selection,
        "propagation": propagation,
        "graph": graph,
        "threshold": threshold,
    }
    model_options = replace(model_options, class_order=class_order)
    options.check_names(model, method, preset, **given)
    run_threads = MEASURED if threads is None else threads
    with console.progress("exporting") as update:
        options.load_torch(update)
        from gtp_exporters import ParityFailedError, QuantizationFailedError
        from gtp_exporters import export as run
        from gtp_exporters.fitting import advice, default_settings
        from gtp_models import load_recipe

        recipe = model_options.changed(load_recipe(model, img_size), weights)
        settings = default_settings(recipe, checked, method, preset, **given)
        _check_seed(seed, weights, settings.schedule)
        is_open = not is_fitted(settings.schedule) and recipe.leaves_schedule_open(method, preset, given)
        failed: ParityFailedError | QuantizationFailedError | None = None
        try:
            exported = run(
                recipe,
                directory,
                settings=settings,
                weights=weights,
                seed=seed or 0,
                options=checked,
                check=check,
                report=report,
                threads=run_threads,
                progress=update,
            )
        except (ParityFailedError, QuantizationFailedError) as error:
            failed = error
    if failed is not None:
        _fail(failed, json)
    proof = exported.proof
    for text in (*exported.manifest.notes, *([proof.note] if proof and proof.note else [])):
        console.note(f"note: {text}")
    if is_open:
        console.note(f"note: {advice(model)}")
    if json:
        console.emit(_document(exported))
    else:
        _show(exported, run_threads)


def _check_seed(seed: int | None, weights: str, schedule: str | None) -> None:
    """Refuse a seed where nothing is random."""
    if seed is not None and weights not in ("random", "auto") and not is_fitted(schedule):
        raise typer.BadParameter(
            f"--seed has no effect with --weights {weights}: it is for random weights, and for --schedule fitted"
        )


def _fail(error: "ParityFailedError | QuantizationFailedError", json: bool) -> NoReturn:
    from gtp_export.tables import gate_failure
    from gtp_exporters import ParityFailedError

    if isinstance(error, ParityFailedError):
        _show_failure(error, json)
    else:
        gate_failure(error, json)
    raise typer.Exit(GATE_FAILED)


def _document(exported: "Exported") -> dict[str, Any]:
    proof = exported.proof
    return {
        "directory": str(exported.directory),
        "files": {name: entry.size for name, entry in exported.manifest.files.items()},
        "weights": exported.manifest.weights.source,
        "notes": exported.manifest.notes,
        "fitting": None if exported.manifest.fitting is None else asdict(exported.manifest.fitting),
        "parity": None if proof is None or proof.parity is None else proof.parity.to_dict(),
        "latency": [] if proof is None else [result.to_dict() for result in proof.latency],
    }


def _show_failure(error: "ParityFailedError", json: bool) -> None:
    from gtp_export.tables import parity_lines

    parity = error.proof.parity
    assert parity is not None
    if json:
        layers = [asdict(layer) for layer in error.errors]
        console.emit({"directory": None, "parity": parity.to_dict(), "layers": layers})
    else:
        parity_lines(parity, "the reference's")
        rows = [(layer.layer, layer.text) for layer in error.errors[:10]]
        if rows:
            console.table("layers furthest from fp32", ("layer", "relative error"), rows)
    console.err.print(f"error: {error}", style="red", markup=False)


def _show(exported: "Exported", threads: int) -> None:
    from gtp_export.tables import describe_fitting

    manifest, proof = exported.manifest, exported.proof
    weights = manifest.weights
    console.out.print(f"{manifest.model.title}, weights: {weights.source} ({weights.detail})", markup=False)
    if manifest.fitting is not None:
        console.out.print(describe_fitting(manifest.fitting), markup=False)
    if proof is not None and proof.parity is not None:
        _show_proof(exported, proof, threads)
    names = " ".join([*manifest.files, "model.json"])
    console.out.print(f"wrote {exported.directory}: {names}", markup=False)
    console.next_command(*_next(exported))


def _show_proof(exported: "Exported", proof: "Proof", threads: int) -> None:
    from gtp_export.tables import latency_table, parity_lines

    assert proof.parity is not None
    batch = proof.latency[0].batch
    used = f"{threads or 'all'} thread{'s' if threads != 1 else ''}"
    latency_table(proof.latency, f"{_RUNTIMES.get(proof.backend, proof.backend)}, {used}, batch {batch}")
    parity_lines(proof.parity, str(exported.manifest.reference["images"]))


def _next(exported: "Exported") -> list[str]:
    manifest, graph = exported.manifest, f"{exported.directory}/model.onnx"
    proof, backend = exported.proof, list[str]()
    if proof is None:
        return ["validate", graph]
    if proof.parity is None or proof.backend != "onnxruntime":  # ONNX Runtime cannot run it
        if manifest.target == "tensorrt":
            return ["build-engine", graph]
        backend = ["--backend", proof.backend]
    if proof.parity is None:
        return ["inspect", graph]
    backend += option_words(allow_random=manifest.weights.source == "random")
    if manifest.gives_features:
        return ["embed", graph, "IMAGES", "-o", "features.npz", *backend]
    return ["predict", graph, "IMAGE", *backend]
