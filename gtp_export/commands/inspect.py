"""``gtp-export inspect``: show an export: settings, layers and files."""

from dataclasses import asdict
from pathlib import Path

from gtp_export import console
from gtp_export.options import Json, ModelPath
from gtp_export.tables import curves_table, describe_engine, describe_fitting, describe_quantization
from gtp_runtime import Manifest, errors, read_manifest
from gtp_runtime.manifest import FileEntry, TensorSpec
from gtp_runtime.placement import Placement

LONG = 80  # characters of a setting that are shown


def inspect(path: ModelPath, json: Json = False) -> None:
    """Show an export: its settings, the tokens, MACs and graph nodes of each layer, and its files with their parity."""
    if not path.exists():
        raise errors.ManifestError(f"no file {path}: gtp-export export MODEL writes one")
    directory = path if path.is_dir() else path.parent
    manifest = read_manifest(directory)
    if json:
        console.emit(asdict(manifest))
        return
    _summary(manifest, directory)
    if manifest.fitting is not None:
        console.out.print(describe_fitting(manifest.fitting), markup=False)
    _layers(manifest)
    if manifest.fitting is not None:
        curves_table(manifest.fitting)
    _files(manifest)
    console.next_command("validate", directory)


def _summary(manifest: Manifest, directory: Path) -> None:
    weights = manifest.weights
    console.out.print(f"{manifest.model.title} ({manifest.model.timm}) in {directory}", style="bold", markup=False)
    console.out.print(f"weights: {weights.source} ({weights.detail}), sha256 {weights.sha256[:12]}…", markup=False)
    settings = ", ".join(f"{name} {_short(value)}" for name, value in manifest.settings.items() if value is not None)
    described = f"method {manifest.method}{f': {settings}' if settings else ''}"
    console.out.print(
        f"{described}; opset {manifest.opset}, target {manifest.target}, form {manifest.form}, "
        f"batch {_batches(manifest)}",
        markup=False,
    )


def _batches(manifest: Manifest) -> str:
    """How many images a run of the graphs takes: "1", "1..16"."""
    return ", ".join(dict.fromkeys(str(entry.batches) for entry in manifest.files.values() if entry.inputs)) or "-"


def _short(value: object) -> str:
    """A setting in words; a long list (calibrated thresholds) as its length."""
    text = str(value)
    return f"({len(value)} values)" if isinstance(value, list) and len(text) > LONG else text


def _layers(manifest: Manifest) -> None:
    rows = [
        (
            f"{index}",
            f"{layer.tokens_in}",
            f"{layer.tokens_out}",
            f"{layer.num_prop}",
            f"{layer.macs / 1e6:.1f}",
            f"{layer.method_macs / 1e6:.2f}",
            f"{layer.nodes}",
        )
        for index, layer in enumerate(manifest.layers)
    ]
    console.table("", ("layer", "tokens in", "tokens out", "leave", "MACs, M", "method's own, M", "nodes"), rows)
    macs = manifest.macs
    backbone, dense, method = (macs.get(name, 0) for name in ("backbone", "dense", "method"))
    share = f" ({backbone / dense:.1%})" if dense else ""
    console.out.print(
        f"MACs: {backbone / 1e9:.3f} G of the dense model's {dense / 1e9:.3f} G{share}; "
        f"the method itself adds {method / 1e9:.3f} G",
        markup=False,
    )


def _files(manifest: Manifest) -> None:
    mark = " (random weights)" if manifest.weights.source == "random" else ""
    rows = [
        (
            name + (mark if entry.role in ("model", "dense") else ""),
            f"{entry.size / 1e6:.1f}",
            entry.method or entry.role,
            (entry.precision or "-") + (" (unknown here)" if entry.unknown else ""),
            str(entry.nodes or "-"),
            _proven(manifest, name),
            f"{_shapes(entry, entry.inputs)} → {_shapes(entry, entry.outputs)}" if entry.inputs else "-",
        )
        for name, entry in manifest.files.items()
    ]
    console.table("", ("file", "MB", "method", "precision", "nodes", "parity", "inputs → outputs"), rows)
    for name, entry in manifest.files.items():
        if (made := entry.conversion) is not None:
            soc = f" for {made.soc}" if made.soc else ""
            what = f"{name}: made from {made.onnx} by {made.converter} {made.version}{soc}"
            proven = "" if name in manifest.measured("parity") else "; not proven"
            console.out.print(f"{what}{proven}", markup=False)
        if entry.engine is not None:
            console.out.print(f"{name}: {describe_engine(entry.engine)}", markup=False)
        if entry.quantization is not None:
            console.out.print(f"{name}: {describe_quantization(entry.quantization)}", markup=False)
    for kind in ("parity", "latency"):
        for name, result in manifest.measured(kind).items():
            if "placement" in result:
                placement = Placement(result["placement"]["nodes"], result["placement"]["fell_back"])
                console.out.print(f"{name}: {kind} on {result['device']}; {placement}", markup=False)
    for name, result in manifest.measured("quantization_failed").items():
        console.out.print(f"{name}: last attempt failed its gate: {'; '.join(result['problems']) or 'its twin did'}")


def _proven(manifest: Manifest, name: str) -> str:
    result = manifest.measured("parity").get(name)
    return "-" if result is None else "ok" if result["ok"] else "FAILED"


def _shapes(entry: FileEntry, specs: list[TensorSpec]) -> str:
    """The shapes of inputs or outputs; a free first axis as its range: [1..16, 3, 224, 224]."""
    return ", ".join(
        f"{spec.name} {spec.dtype}[{', '.join(map(str, [entry.batches, *spec.shape[1:]]))}]" for spec in specs
    )
