"""What the page reads: ``site.json``, facts of the manifest with the limits of parity, and ``pack.bin``, the pack.

``pack.bin`` holds the pack's arrays one behind the other, little-endian, each at a multiple of 8 bytes; ``site.json``
has the type, shape and place of each. The page never takes a text of these files for markup.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from gtp_runtime.manifest import FileEntry, Manifest
from gtp_runtime.parity import limits_of
from gtp_runtime.reference import Reference

DTYPES = {"u": "uint8", "f": "float32", "i": "int32"}
ALIGNMENT = 8


def pack_arrays(pack: Reference) -> dict[str, np.ndarray]:
    """Return what the page compares with, by name: uint8, float32 and int32 arrays."""
    arrays = {"images": pack.images}
    arrays |= {f"output/{name}": values for name, values in pack.outputs.items()}
    arrays |= {f"dense/{name}": values for name, values in (pack.dense_outputs or {}).items()}
    for layer, (left, gap) in enumerate(zip(pack.propagated, pack.gap, strict=True)):
        arrays |= {f"propagated/{layer}": left, f"gap/{layer}": gap}
        if pack.received_by is not None:
            arrays[f"received_by/{layer}"] = pack.received_by[layer]
    if pack.labels is not None:
        arrays["labels"] = pack.labels.astype(np.int32)
    return arrays


def join(arrays: dict[str, np.ndarray]) -> tuple[bytes, dict[str, Any]]:
    """Return arrays as the bytes of ``pack.bin``, and for each its ``dtype``, ``shape`` and ``offset`` in bytes."""
    content, places = bytearray(), {}
    for name, values in arrays.items():
        content.extend(bytes(-len(content) % ALIGNMENT))
        dtype = DTYPES[values.dtype.kind] if values.dtype != np.uint8 else "uint8"
        places[name] = {"dtype": dtype, "shape": list(values.shape), "offset": len(content)}
        content.extend(np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes())
    return bytes(content), places


def graph_facts(name: str, entry: FileEntry) -> dict[str, Any]:
    """Return what the page knows of a graph: names, types, its precision and the limits of parity."""
    return {
        "file": name,
        "role": entry.role,
        "data": entry.external_data,
        "precision": entry.precision,
        "macs": entry.macs,
        "input": asdict(entry.inputs[0]),
        "outputs": [asdict(spec) for spec in entry.outputs],
        "answers": [spec.name for spec in entry.answers],
        "limits": asdict(limits_of(entry.precision)),
    }


def model_facts(manifest: Manifest) -> dict[str, Any]:
    """Return what the page knows of the model."""
    model = manifest.model
    return {
        "title": model.title,
        "timm": model.timm,
        "method": manifest.method,
        "classes": model.num_classes,
        "activation": model.activation,
        "grid": model.grid,
        "num_prop": manifest.num_prop,
        "labels": manifest.labels,
        "weights": {"source": manifest.weights.source, "detail": manifest.weights.detail},
        "reference": str(manifest.reference.get("images", "")),
        "preprocessing": asdict(manifest.preprocessing),
    }
