"""Compares a loaded file with the parity pack (reference) of its directory."""

from typing import TYPE_CHECKING

import numpy as np

from gtp_runtime import parity
from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import REFERENCE_NAME
from gtp_runtime.parity import KeptSets, limits_of
from gtp_runtime.progress import Progress
from gtp_runtime.reference import Reference

if TYPE_CHECKING:
    from gtp_runtime.model import Model


def validate(model: "Model", progress: Progress, min_kept: float | None) -> parity.Parity:
    """Do what ``Model.validate`` says."""
    precision = _precision(model)
    limits_of(precision, min_kept)  # what is wrong with them is said before the work
    reference, dense = model.reference(), model.entry.role == "dense"
    check_fits(reference, model)
    expected = reference.dense_answers if dense else reference.answers
    if expected is None:
        raise ManifestError(f"{REFERENCE_NAME} has no outputs of the dense model: export again")
    outputs = model.run_all(model.prepare(reference.images), progress, "validating")
    kept = None if dense else _kept_sets(outputs, reference)
    return parity.compare(
        outputs[model.entry.outputs[0].name],
        expected,
        precision,
        reference.labels,
        reference.dense_answers,
        kept,
        classes=not model.manifest.gives_features,
        min_kept=min_kept,
    )


def check_fits(reference: Reference, model: "Model") -> None:
    """Check that a parity pack is of this file's export.

    Raises:
        ManifestError: images or answers of another size, another kind of answers, other numbers of tokens that leave.
    """
    manifest, entry = model.manifest, model.entry
    pairs = (
        ("image size", list(reference.images.shape[1:3]), manifest.preprocessing.crop),
        ("output", reference.output, entry.outputs[0].name),
        ("outputs per image", reference.answers.shape[1], entry.outputs[0].shape[1]),
        ("removed tokens by layer", [ids.shape[1] for ids in reference.propagated], manifest.num_prop),
    )
    for what, found, stated in pairs:
        if found != stated:
            raise ManifestError(f"{REFERENCE_NAME} has {what} {found}, but the manifest {stated}: export again")


def _kept_sets(outputs: dict[str, np.ndarray], reference: Reference) -> KeptSets | None:
    if not reference.gap:
        return None
    tokens = reference.kept[0].shape[1] + reference.propagated[0].shape[1]
    found, receivers = outputs.get("propagated"), outputs.get("received_by")
    return KeptSets(found, reference.propagated, reference.gap, tokens, receivers, reference.received_by)


def _precision(model: "Model") -> str:
    """What the file's answers are computed in: the backend's where it is lower than the file's."""
    compute, written = str(model.backend.info.get("compute", "fp32")), model.entry.precision
    return written if compute == "fp32" or limits_of(written).error > limits_of(compute).error else compute
