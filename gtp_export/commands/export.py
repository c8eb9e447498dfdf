"""``gtp-export export``: from a model to an artifact directory, validated and timed."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export import settings_options as of_method
from gtp_export.options import Json, Quiet, Verbose
from gtp_runtime.errors import GATE_FAILED
from gtp_runtime.precisions import PRECISIONS, TARGETS

if TYPE_CHECKING:
    from gtp_exporters import Exported, ParityFailedError
    from gtp_exporters.proof import Proof

_RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def export(
    model: Annotated[str, typer.Argument(help="A recipe (gtp-export models), timm:NAME, or a recipe file.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The artifact directory (default: build/MODEL).", show_default=False),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="pretrained, a .safetensors, .pth, .pt or .pth.tar file, random (seeded), or auto: a file "
            "weights/MODEL.safetensors (or .pth, ...), else pretrained, else random."
        ),
    ] = "pretrained",
    batch: Annotated[int, typer.Option("-b", "--batch", help="Images per run.", min=1)] = 1,
    img_size: Annotated[
        str | None,
        typer.Option(help="Image size in pixels: 224, or HEIGHTxWIDTH (default: the model's).", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="A folder of images for the reference (default: the recipe's images, else synthetic ones).",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(help=f"The runtime whose limits are checked: {', '.join(TARGETS)}. The first is the strictest."),
    ] = "tensorrt",
    precision: Annotated[
        str,
        typer.Option(
            help=f"Precision of the graphs: {', '.join(PRECISIONS)}. Inputs stay float32. "
            "int8 graphs are for --target, calibrated on --calib-data, and added to the fp32 ones."
        ),
    ] = "fp32",
    input_: Annotated[
        str, typer.Option("--input", help="float: (B,3,H,W); or uint8: (B,H,W,3) pixels, normalised in the graph.")
    ] = "float",
    head: Annotated[
        str,
        typer.Option(
            help="keep: logits; none: pooled features without the classifier; auto: logits if there is a classifier."
        ),
    ] = "auto",
    opset: Annotated[int, typer.Option(help="ONNX opset.")] = 20,
    simplify: Annotated[bool, typer.Option(help="Simplify the graphs with onnxsim.")] = True,
    dense: Annotated[bool, typer.Option(help="Write the dense baseline, dense.onnx, for comparison.")] = True,
    trace: Annotated[
        bool, typer.Option(help="Add outputs with the ids of the removed tokens and, if merged, of their receivers.")
    ] = True,
    method: of_method.Method = "gtp",
    preset: of_method.Preset = None,
    num_prop: of_method.NumProp = None,
    schedule: of_method.Schedule = None,
    macs: of_method.Macs = None,
    keep: of_method.Keep = None,
    sparsity: of_method.Sparsity = None,
    alpha: of_method.Alpha = None,
    num_neighbours: of_method.NumNeighbours = None,
    token_scale: of_method.TokenScale = None,
    selection: of_method.Selection = None,
    propagation: of_method.Propagation = None,
    graph: of_method.Graph = None,
    threshold: of_method.Threshold = None,
    calib_data: of_method.CalibData = None,
    seed: Annotated[int | None, typer.Option(help="Seed of random weights (default: 0).", show_default=False)] = None,
    check: Annotated[bool, typer.Option(help="Validate and time the export before it replaces an earlier one.")] = True,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of the check, 0 for all (default: 1).", show_default=False)
    ] = None,
    report: Annotated[bool, typer.Option(help="Write report.html, a page that shows the export.")] = True,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Export MODEL with token reduction to static ONNX, with all files that the runtime needs."""
    if threads is not None and not check:
        raise typer.BadParameter("--threads has no effect with --no-check: leave one out")
    if seed is not None and weights not in ("random", "auto"):
        raise typer.BadParameter(f"--seed has no effect with --weights {weights}: it is for random weights")
    threads = 1 if threads is None else threads
    given: dict[str, Any] = {
        "num_prop": of_method.read_num_prop(num_prop),
        "schedule": schedule,
        "macs": of_method.read_macs(macs),
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
    size = of_method.read_size(img_size)
    with console.progress("exporting") as update:
        update("loading torch")
        from gtp_exporters import ExportOptions, ParityFailedError, QuantizationFailedError
        from gtp_exporters import export as run
        from gtp_models import load_recipe

        recipe = load_recipe(model, size)
        options = ExportOptions(
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
            head=head,
        )
        settings = recipe.settings(method, preset, **given)
        failed: ParityFailedError | QuantizationFailedError | None = None
        try:
            exported = run(
                recipe,
                output,
                settings=settings,
                weights=weights,
                seed=seed or 0,
                options=options,
                check=check,
                report=report,
                threads=threads,
                progress=update,
            )
        except (ParityFailedError, QuantizationFailedError) as error:
            failed = error
    if failed is not None:
        if isinstance(failed, QuantizationFailedError):
            from gtp_export.gate_reports import gate_failure

            gate_failure(failed, json)
        else:
            _show_failure(failed, json)
        raise typer.Exit(GATE_FAILED)
    proof = exported.proof
    for text in (*exported.manifest.notes, *([proof.note] if proof and proof.note else [])):
        console.note(f"note: {text}")
    if json:
        console.emit(_document(exported))
    else:
        _show(exported, threads)


def _document(exported: "Exported") -> dict[str, Any]:
    proof = exported.proof
    return {
        "directory": str(exported.directory),
        "files": {name: entry.size for name, entry in exported.manifest.files.items()},
        "weights": exported.manifest.weights.source,
        "notes": exported.manifest.notes,
        "parity": None if proof is None or proof.parity is None else proof.parity.to_dict(),
        "latency": [] if proof is None else [result.to_dict() for result in proof.latency],
    }


def _show_failure(error: "ParityFailedError", json: bool) -> None:
    from gtp_export.reports import parity_lines

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
    manifest, proof = exported.manifest, exported.proof
    weights = manifest.weights
    console.out.print(f"{manifest.model.title}, weights: {weights.source} ({weights.detail})", markup=False)
    if proof is not None and proof.parity is not None:
        _show_proof(exported, proof, threads)
    names = " ".join([*manifest.files, "model.json"])
    console.out.print(f"wrote {exported.directory}: {names}", markup=False)
    console.out.print(f"next: {_next(exported)}", markup=False)


def _show_proof(exported: "Exported", proof: "Proof", threads: int) -> None:
    from gtp_export.reports import latency_table, parity_lines

    assert proof.parity is not None
    batch = proof.latency[0].batch
    used = f"{threads or 'all'} thread{'s' if threads != 1 else ''}"
    latency_table(proof.latency, f"{_RUNTIMES[proof.backend]}, {used}, batch {batch}")
    parity_lines(proof.parity, str(exported.manifest.reference["images"]))


def _next(exported: "Exported") -> str:
    manifest, graph = exported.manifest, f"{exported.directory}/model.onnx"
    proof, options = exported.proof, ""
    if proof is None:
        return f"gtp-export validate {graph}"
    if proof.parity is None or proof.backend != "onnxruntime":  # ONNX Runtime cannot run it
        if manifest.target == "tensorrt":
            return f"gtp-export build-engine {graph}"
        options = f" --backend {proof.backend}"
    if proof.parity is None:
        return f"gtp-export inspect {graph}"
    if manifest.gives_features:
        return f"gtp-export bench {graph}{options}"
    allow = " --allow-random" if manifest.weights.source == "random" else ""
    return f"gtp-export predict {graph} IMAGE{options}{allow}"
