"""``gtp-export inspect``: what an export holds, layer by layer."""

from dataclasses import asdict
from pathlib import Path

from gtp_export import console
from gtp_export.options import Json, ModelPath
from gtp_runtime import Manifest, errors, read_manifest


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
    settings = ", ".join(f"{name} {value}" for name, value in gtp.items())
    console.out.print(f"GTP: {settings}; opset {manifest.opset}, target {manifest.target}", markup=False)


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
            str(entry.nodes or "-"),
            _shapes(entry),
        )
        for name, entry in manifest.files.items()
    ]
    console.table("", ("file", "MB", "nodes", "inputs → outputs"), rows)


def _shapes(entry: "object") -> str:
    def show(specs: list) -> str:  # type: ignore[type-arg]
        return ", ".join(f"{spec.name} {spec.dtype}{spec.shape}" for spec in specs)

    inputs, outputs = show(entry.inputs), show(entry.outputs)  # type: ignore[attr-defined]
    return f"{inputs} → {outputs}" if inputs else "-"
