"""``config.pbtxt``: what Triton is told of a model."""

import json
from dataclasses import dataclass
from typing import Any

from gtp_exporters.errors import LimitError
from gtp_runtime.manifest import TensorSpec

LABELS_NAME = "labels.txt"
KINDS = {"auto": "KIND_AUTO", "gpu": "KIND_GPU", "cpu": "KIND_CPU"}
TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8", "int32": "TYPE_INT32"}


class Word(str):
    """A word of an enumeration, which stands without quotes."""


@dataclass(frozen=True)
class TritonOptions:
    """How Triton runs the models.

    Attributes:
        name: the model's name; default: the recipe's.
        backend: "auto" (by the file: ONNX Runtime or TensorRT), "onnxruntime", "openvino" or "tensorrt".
        instances: copies of the model that run side by side.
        kind: where they run: "auto", "gpu" or "cpu".
        cuda_graphs: whether the GPU's work is recorded once and replayed; None: for engines.
        max_delay_us: microseconds that the front model waits for more requests; None: 1000. Only where there are
            several numbers of images.

    Raises:
        LimitError: a value that is not allowed.
    """

    name: str | None = None
    backend: str = "auto"
    instances: int = 1
    kind: str = "auto"
    cuda_graphs: bool | None = None
    max_delay_us: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("instances", self.instances, 1), ("max_delay_us", self.max_delay_us, 0)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise LimitError(f"{name}={value!r}: give a whole number of at least {least}")
        if self.kind not in KINDS:
            raise LimitError(f"kind={self.kind!r} is unknown: choose one of {', '.join(KINDS)}")


def tensors(specs: list[TensorSpec], labelled: str | None = None, without_batch: bool = False) -> list[dict[str, Any]]:
    """Describe inputs or outputs; the output ``labelled`` has names for its classes."""
    return [
        {
            "name": spec.name,
            "data_type": Word(TYPES[spec.dtype]),
            "dims": spec.shape[1:] if without_batch else spec.shape,
            **({"label_filename": LABELS_NAME} if spec.name == labelled else {}),
        }
        for spec in specs
    ]


def instance_group(options: TritonOptions) -> list[dict[str, Any]]:
    """Say how many copies run where."""
    return [{"count": options.instances, "kind": Word(KINDS[options.kind])}]


def pbtxt(values: dict[str, Any], indent: str = "") -> str:
    """Return values in protobuf's text format: a list is a field that is repeated, a list of numbers one line."""
    lines = []
    for name, value in values.items():
        for item in value if isinstance(value, list) and not _is_numbers(value) else [value]:
            if isinstance(item, dict):
                lines.append(f"{indent}{name} {{\n{pbtxt(item, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(item)}\n")
    return "".join(lines)


def _is_numbers(value: list[Any]) -> bool:
    return all(isinstance(item, int) for item in value)


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        return json.dumps(value, ensure_ascii=True)
    return str(value)
