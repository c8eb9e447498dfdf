"""``gtp-export inspect``: what an export holds, layer by layer."""

from dataclasses import asdict
from pathlib import Path

from gtp_export import console
from gtp_export.options import Json, ModelPath
from gtp_export.reports import describe_engine
from gtp_runtime import Manifest, errors, read_manifest
from gtp_runtime.manifest import TensorSpec


def inspect(path: ModelPath, json: Json = False) -> None:
    """Show tokens, MACs and graph nodes of each layer, from the manifest."""
    if not path.exists():
        raise errors.ManifestError(f"no file {path}: gtp-export export MODEL writes one")
    directory = path if path.is_dir() else path.parent
    manifest = read_manifest(directory)
    if json:
        console.emit(asdict(manifest))
        return
    _summary(manifest, directory)
    _layers(manifest)
    _files(manifest)
    console.out.print(f"next: gtp-export validate {directory}", markup=False)


def _summary(manifest: Manifest, directory: Path) -> None:
    weights, gtp = manifest.weights, manifest.gtp
    console.out.print(f"[bold]{manifest.model.title}[/bold] ({manifest.model.timm}) in {directory}")
    console.out.print(f"weights: {weights.source} ({weights.detail}), sha256 {weights.sha256[:12]}…", markup=False)
    method = next((entry.method for entry in manifest.files.values() if entry.role == "model"), "gtp")
    settings = ", ".join(f"{name} {value}" for name, value in gtp.items() if name != "calibration")
    console.out.print(f"method {method}: {settings}; opset {manifest.opset}, target {manifest.target}", markup=False)


def _layers(manifest: Manifest) -> None:
    rows = [
        (
            f"{index}",
            f"{layer.tokens_in}",
            f"{layer.tokens_out}",
            f"{layer.num_prop}",
            f"{layer.macs / 1e6:.1f}",
            f"{layer.gtp_macs / 1e6:.2f}",
            f"{layer.nodes}",
        )
        for index, layer in enumerate(manifest.layers)
    ]
    console.table("", ("layer", "tokens in", "tokens out", "leave", "MACs, M", "GTP's own, M", "nodes"), rows)
    macs = manifest.macs
    ratio = macs["backbone"] / macs["dense"]
    console.out.print(
        f"MACs: {macs['backbone'] / 1e9:.3f} G of the dense {macs['dense'] / 1e9:.3f} G ({ratio:.1%}); "
        f"GTP's own {macs['gtp'] / 1e9:.3f} G (graph {macs['graph'] / 1e9:.3f} G)",
        markup=False,
    )


def _files(manifest: Manifest) -> None:
    mark = " (random weights)" if manifest.weights.source == "random" else ""
    rows = [
        (
            name + (mark if entry.role in ("model", "dense") else ""),
            f"{entry.size / 1e6:.1f}",
            entry.method or entry.role,
            entry.precision or "-",
            str(entry.nodes or "-"),
            _proven(manifest, name),
            f"{_shapes(entry.inputs)} → {_shapes(entry.outputs)}" if entry.inputs else "-",
        )
        for name, entry in manifest.files.items()
    ]
    console.table("", ("file", "MB", "method", "precision", "nodes", "parity", "inputs → outputs"), rows)
    for name, entry in manifest.files.items():
        if entry.engine is not None:
            console.out.print(f"{name}: {describe_engine(entry.engine)}", markup=False)


def _proven(manifest: Manifest, name: str) -> str:
    result = manifest.results.get("parity", {}).get(name)
    return "-" if result is None else "ok" if result["ok"] else "FAILED"


def _shapes(specs: list[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype}{spec.shape}" for spec in specs)
