"""``gtp-export export``: from a model to an artifact directory, validated and measured."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export.exit_codes import GATE_FAILED
from gtp_export.options import Json, Quiet, Threads, Verbose

if TYPE_CHECKING:
    from gtp_exporters import Exported
    from gtp_runtime import Latency, Parity

SECONDS = 3.0
GTP = "GTP settings (the recipe's without; for timm:NAME chosen by its tokens and depth)"


def export(
    model: Annotated[str, typer.Argument(help="A recipe (gtp-export models), timm:NAME, or a recipe file.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The artifact directory; build/MODEL without.", show_default=False),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="pretrained, a .safetensors / .pth / .pt file, random (seeded), or auto: weights/MODEL.safetensors, "
            "else pretrained, else random."
        ),
    ] = "pretrained",
    batch: Annotated[int, typer.Option("-b", "--batch", help="Images a run.", min=1)] = 1,
    img_size: Annotated[
        str | None, typer.Option(help="Pixels: 224, or HEIGHTxWIDTH; the model's own without.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="A folder of images for the parity pack; synthetic ones without.", show_default=False
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="gtp, or a rival with the same token counts: dense, drop, prune, mean, tome.")
    ] = "gtp",
    target: Annotated[
        str, typer.Option(help="Whose limits hold: tensorrt (the strictest), onnxruntime, openvino.")
    ] = "tensorrt",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 or bf16, written into the graphs (TensorRT); inputs stay float32.")
    ] = "fp32",
    input_: Annotated[
        str, typer.Option("--input", help="float (B,3,H,W), or uint8: (B,H,W,3) pixels, normalised in the graph.")
    ] = "float",
    head: Annotated[
        str,
        typer.Option(
            help="none: pooled features without the classifier; keep: logits; auto: features where the model has none."
        ),
    ] = "auto",
    opset: Annotated[int, typer.Option(help="ONNX opset.")] = 20,
    simplify: Annotated[bool, typer.Option(help="Simplify the graphs with onnxsim.")] = True,
    dense: Annotated[bool, typer.Option(help="Write the unpatched twin, dense.onnx, to compare with.")] = True,
    trace: Annotated[bool, typer.Option(help="Give the graph the output 'propagated': which tokens left.")] = True,
    num_prop: Annotated[
        str | None,
        typer.Option(
            help="Tokens that leave in every layer, or one number a layer: 4,8,…",
            rich_help_panel=GTP,
            show_default=False,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Spread the same MACs otherwise: even, early, late, every:K, aligned:M.",
            rich_help_panel=GTP,
            show_default=False,
        ),
    ] = None,
    macs: Annotated[
        str | None,
        typer.Option(
            help="MACs that a schedule may spend: 3.4G; num_prop's without.", rich_help_panel=GTP, show_default=False
        ),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(help="Likewise, as a share of the dense model's.", rich_help_panel=GTP, show_default=False),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(help="Share of the attention map that stays, in (0, 1].", rich_help_panel=GTP, show_default=False),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="How much neighbours receive.", rich_help_panel=GTP, show_default=False)
    ] = None,
    num_neighbours: Annotated[
        int | None, typer.Option(help="Semantic neighbours of a token.", rich_help_panel=GTP, show_default=False)
    ] = None,
    token_scale: Annotated[
        bool | None,
        typer.Option(help="Let tokens that received others weigh more.", rich_help_panel=GTP, show_default=False),
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(help="Score by which tokens stay: MixedAttnMax, …", rich_help_panel=GTP, show_default=False),
    ] = None,
    propagation: Annotated[
        str | None, typer.Option(help="GraphProp, None (prune) or Mean.", rich_help_panel=GTP, show_default=False)
    ] = None,
    graph: Annotated[
        str | None, typer.Option(help="Spatial, Semantic, Mixed or None.", rich_help_panel=GTP, show_default=False)
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="How sparsity finds its threshold: exact or calibrated.", rich_help_panel=GTP, show_default=False
        ),
    ] = None,
    calib_data: Annotated[
        Path | None,
        typer.Option(
            help="Images to calibrate thresholds on; the recipe's own without.", rich_help_panel=GTP, show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random weights.")] = 0,
    check: Annotated[bool, typer.Option(help="Validate and benchmark what was written.")] = True,
    threads: Threads = 1,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Export MODEL, patched with GTP, to static ONNX with everything that a device needs."""
    settings: dict[str, Any] = {
        "num_prop": None if num_prop is None else _whole_numbers(num_prop, ",", "--num-prop"),
        "sparsity": sparsity,
        "alpha": alpha,
        "num_neighbours": num_neighbours,
        "token_scale": token_scale,
        "selection": selection,
        "propagation": propagation,
        "graph": graph,
        "threshold": threshold,
    }
    size = None if img_size is None else _whole_numbers(img_size, "x", "--img-size")
    if isinstance(size, tuple) and len(size) != 2:
        raise typer.BadParameter(f"--img-size takes one number or HEIGHTxWIDTH; this is {img_size!r}")
    with console.progress("loading torch") as update:
        update("loading torch")
        from gtp_exporters import Options
        from gtp_exporters import export as run
        from gtp_models import load_recipe

        pixels = (size, size) if isinstance(size, int) else size
        recipe = load_recipe(model, pixels)
        exported = run(
            recipe,
            output,
            config=recipe.config(**settings),
            weights=weights,
            img_size=pixels,
            seed=seed,
            options=Options(
                batch=batch,
                opset=opset,
                simplify=simplify,
                dense=dense,
                trace=trace,
                target=target,
                data=data,
                precision=precision,
                input=input_,
                method=method,
                schedule=schedule,
                budget=_budget(macs, keep),
                calib_data=calib_data,
                head=head,
            ),
            progress=update,
        )
    for text in exported.notes:
        console.note(f"note: {text}")
    if check and precision == "bf16":
        console.note("note: ONNX Runtime runs no bf16 on CPUs, so nothing was checked here")
    parity, latency = _check(exported, threads) if check and precision != "bf16" else (None, [])
    if json:
        console.emit(_document(exported, parity, latency))
    else:
        _show(exported, parity, latency, threads)
    if parity is not None and not parity.ok:
        raise typer.Exit(GATE_FAILED)


def _budget(macs: str | None, keep: float | None) -> float | None:
    if macs is not None and keep is not None:
        raise typer.BadParameter("--macs and --keep say the same: give one")
    if keep is not None and not 0 < keep <= 1:
        raise typer.BadParameter(f"--keep takes a share in (0, 1]; this is {keep:g}")
    if macs is None:
        return keep
    units = {"M": 1e6, "G": 1e9}
    try:
        budget = float(macs.rstrip("MG")) * units.get(macs[-1:], 1)
    except ValueError:
        budget = 0
    if budget <= 1:
        raise typer.BadParameter(f"--macs takes a number like 3.4G or 850M; this is {macs!r}")
    return budget


def _whole_numbers(text: str, separator: str, option: str) -> "int | tuple[int, ...]":
    try:
        numbers = tuple(int(part) for part in text.split(separator))
        return numbers if separator in text else numbers[0]
    except ValueError:
        raise typer.BadParameter(f"{option} takes whole numbers: 8 or 4{separator}8; this is {text!r}") from None


def _check(exported: "Exported", threads: int) -> "tuple[Parity, list[Latency]]":
    from gtp_runtime import benchmark, load

    names = [name for name, entry in exported.manifest.files.items() if entry.role in ("dense", "model")]
    names.sort(key=lambda name: exported.manifest.files[name].role)  # the dense twin first
    models = [load(exported.directory / name, threads=threads or None) for name in names]
    with console.progress("validating") as update:
        reports = [model.validate(update) for model in models]
    with console.progress("benchmarking") as update:
        latency = benchmark(models, SECONDS, update)
    for model, report, result in zip(models, reports, latency, strict=True):
        model.record("parity", report.to_dict())
        model.record("latency", {**result.to_dict(), "file": model.path.name, **model.backend.info})
        model.close()
    combined = replace(reports[-1], problems=[*reports[-1].problems, *_of_dense(reports[:-1])])
    return combined, [replace(result, file=name) for result, name in zip(latency, names, strict=True)]


def _of_dense(reports: "list[Parity]") -> list[str]:
    return [f"dense.onnx: {problem}" for report in reports for problem in report.problems]


def _document(exported: "Exported", parity: "Parity | None", latency: "list[Latency]") -> dict[str, Any]:
    return {
        "directory": str(exported.directory),
        "files": {name: entry.size for name, entry in exported.manifest.files.items()},
        "weights": exported.manifest.weights.source,
        "notes": list(exported.notes),
        "parity": None if parity is None else parity.to_dict(),
        "latency": [result.to_dict() for result in latency],
    }


def _show(exported: "Exported", parity: "Parity | None", latency: "list[Latency]", threads: int) -> None:
    from gtp_export.reports import latency_table, parity_lines

    manifest = exported.manifest
    console.out.print(
        f"[bold]{manifest.model.title}[/bold], weights: {manifest.weights.source} ({manifest.weights.detail})"
    )
    if latency:
        latency_table(
            latency, f"ONNX Runtime, {threads or 'all'} thread{'s' if threads != 1 else ''}, batch {latency[0].batch}"
        )
    if parity is not None:
        parity_lines(parity, str(manifest.reference["images"]))
    names = " ".join([*manifest.files, "model.json"])
    console.out.print(f"wrote {exported.directory}: {names}", markup=False)
    if not latency:
        console.out.print(f"next: gtp-export build-engine {exported.directory}/model.onnx", markup=False)
        return
    if manifest.gives_features:
        console.out.print(f"next: gtp-export bench {exported.directory}/model.onnx", markup=False)
        return
    allow = " --allow-random" if manifest.weights.source == "random" else ""
    console.out.print(f"next: gtp-export predict {exported.directory}/model.onnx IMAGE{allow}", markup=False)
