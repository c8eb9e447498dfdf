"""Whether the tensors of a file are those that the manifest says, and such that images can be run through it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import FileEntry, Manifest

Tensor = tuple[str, list[Any], str]  # name, shape, numpy dtype name
ROLES = ("model", "dense")


def check_tensors(path: Path, inputs: Iterable[Tensor], outputs: Iterable[Tensor], entry: FileEntry) -> None:
    """Check names, shapes and dtypes; their order does not count, for each is looked up by its name.

    Args:
        path: the file, for the message.
        inputs, outputs: what the engine found; TensorRT's inputs and outputs may come together as ``inputs``.
        entry: what the manifest says.

    Raises:
        ManifestError: they differ; names what does.
    """
    found = {name: (shape, dtype) for name, shape, dtype in (*inputs, *outputs)}
    stated = {spec.name: (spec.shape, spec.dtype) for spec in (*entry.inputs, *entry.outputs)}
    for name in dict.fromkeys((*found, *stated)):
        if found.get(name) != stated.get(name):
            raise ManifestError(
                f"{path} has {_described(name, found)}, its manifest says {_described(name, stated)}: export again"
            )


def _described(name: str, tensors: dict[str, tuple[list[Any], str]]) -> str:
    if name not in tensors:
        return f"no tensor {name!r:.60}"
    shape, dtype = tensors[name]
    return f"{name!r:.60} {tuple(shape)} {dtype}"


def check_runnable(path: Path, manifest: Manifest) -> None:
    """Check a file's input and output against the preprocessing and the classes.

    Raises:
        ManifestError: they do not fit; says which.
    """
    entry = manifest.entry(path.name)
    if entry.role not in ROLES:
        raise ManifestError(f"{path} is no model: its role is {entry.role}")
    if problem := _input_problem(entry, manifest) or _output_problem(entry, manifest):
        raise ManifestError(f"the manifest of {path} contradicts itself: {problem}; export again")


def _input_problem(entry: FileEntry, manifest: Manifest) -> str:
    if len(entry.inputs) != 1:
        return f"{len(entry.inputs)} inputs, and a model takes one"
    spec, (height, width) = entry.inputs[0], manifest.preprocessing.crop
    forms = {"float32": [3, height, width], "uint8": [height, width, 3]}
    if spec.dtype not in forms:
        return f"an input of {spec.dtype}, and images are float32 or uint8"
    if len(spec.shape) != 4 or spec.shape[1:] != forms[spec.dtype]:
        return f"an input of shape {spec.shape}, and images are (B, {', '.join(map(str, forms[spec.dtype]))})"
    return ""


def _output_problem(entry: FileEntry, manifest: Manifest) -> str:
    if not entry.outputs:
        return "no output"
    answers, batch, classes = entry.outputs[0], entry.inputs[0].shape[0], manifest.model.num_classes
    if len({spec.name for spec in (*entry.inputs, *entry.outputs)}) != 1 + len(entry.outputs):
        return "tensors of the same name"
    if answers.dtype != "float32" or len(answers.shape) != 2 or answers.shape[0] != batch:
        return f"answers {tuple(answers.shape)} {answers.dtype}, and they are ({batch}, classes) float32"
    if classes and answers.shape[1] != classes:
        return f"{answers.shape[1]} answers for each image, and {classes} classes"
    for spec in entry.outputs[1:]:
        if spec.dtype != "int32" or len(spec.shape) != 2 or spec.shape[0] != batch:
            return f"output {spec.name} {tuple(spec.shape)} {spec.dtype}, and tokens are ({batch}, tokens) int32"
    return ""
