"""What is asked of a model's outputs, what the truth of the images is, and the one function that scores image by image.

| outputs | the metric | beside it |
| --- | --- | --- |
| logits | divergence | top-1, top-5, agreement |
| features (one vector an image) | relative error | cosine, neighbours; with classes k-NN top-1, recall@k, mAP |
| features, with text embeddings | divergence of zero-shot classes | top-1, top-5, agreement |
| patches, maps, a module's own | relative error, mIoU of masks, AbsRel of depths | correlation, of each output |

A metric of the user's own takes the place of the first one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from gtp_runtime.accuracy import BY_CLASS, DIVERGENCE, VALUE, Metric, Outputs, Scores, class_scores, cosine
from gtp_runtime.errors import InputError
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.images.labels import find_image_set
from gtp_runtime.images.targets import Targets
from gtp_runtime.manifest import Manifest
from gtp_runtime.metrics import OF_TRUTH, RELATIVE, Own, as_metric, correlation, relative_error
from gtp_runtime.neighbours import Gallery
from gtp_runtime.prompts import Prompts, read_prompts

LOGITS, FEATURES, DENSE = "logits", "features", "dense"  # kinds of outputs: DENSE is all but one vector an image


@dataclass(frozen=True)
class Question:
    """What is measured of a model's outputs.

    Attributes:
        kind: "logits", "features", or "dense".
        metric: whose distance from the dense model counts.
        activation: of logits.
        prompts: text embeddings that make logits of features.
        gallery: the reference set of features.
    """

    kind: str = LOGITS
    metric: Metric = DIVERGENCE
    activation: str = "softmax"
    prompts: Prompts | None = None
    gallery: Gallery | None = None

    @property
    def quality(self) -> str:
        """What top-1 is, in words."""
        return "zero-shot top-1" if self.prompts else "top-1" if self.kind == LOGITS else "k-NN top-1"

    @property
    def has_classes(self) -> bool:
        """Whether images of classes have a top-1."""
        return self.kind != DENSE

    @property
    def needs_gallery(self) -> bool:
        """Whether features are looked up in a reference set, which is yet to be made."""
        return self.kind == FEATURES and self.prompts is None and self.gallery is None

    @property
    def key(self) -> list[str]:
        """What tells it from others."""
        return [self.kind, self.metric.name, self.metric.unit, "" if self.prompts is None else self.prompts.digest]

    def beside(self, gallery: Gallery) -> "Question":
        """Return the same with a reference set."""
        return replace(self, gallery=gallery)


def question_of(
    kind: str, activation: str = "softmax", own: Own | None = None, prompts: Prompts | None = None
) -> Question:
    """Return what is measured of a kind of output: "logits", "features", or any other, which is dense.

    Raises:
        InputError: text embeddings for something else than features, or a metric that is none.
    """
    kind = kind if kind in (LOGITS, FEATURES) else DENSE
    if prompts is not None and kind != FEATURES:
        raise InputError(
            f"text embeddings (--classes-from) make classes of features, and this model gives {kind} outputs"
        )
    by_class = BY_CLASS if activation == "sigmoid" else DIVERGENCE
    metric = by_class if kind == LOGITS or prompts is not None else RELATIVE
    return Question(kind, metric if own is None else as_metric(own), activation, prompts)


def question_about(manifest: Manifest, own: Own | None = None, prompts: Prompts | None = None) -> Question:
    """Return what is measured of an export. Raises as ``question_of``."""
    kind = LOGITS if not manifest.gives_features else DENSE if manifest.is_dense else FEATURES
    return question_of(kind, manifest.model.activation, own, prompts)


def score(
    outputs: Outputs,
    dense: Outputs | None,
    truth: np.ndarray | None,
    question: Question,
    names: Sequence[bytes] = (),
) -> Scores:
    """Score outputs of N images, N > 0, image by image.

    Args:
        outputs, dense: (N, ...) by name, of a model and of the dense one; None where there is none.
        truth: (N,) classes, or (N, H, W) masks or depths; None where unknown.
        question: what is measured.
        names: of the images, where there is a gallery.
    """
    if question.prompts is not None:
        outputs, dense = _zero_shot(outputs, question.prompts), dense and _zero_shot(dense, question.prompts)
    scores: Scores = {}
    answers, exact = _first(outputs), None if dense is None else _first(dense)
    if question.kind == LOGITS or question.prompts is not None:
        scores |= class_scores(answers, exact, truth, question.activation)
    elif question.kind == FEATURES and question.gallery is not None:
        scores |= question.gallery.scores(answers, exact, names, truth)
    if dense is not None:
        scores |= question.metric.scores(dense, outputs, truth) | _beside(outputs, dense, question)
    elif question.metric in OF_TRUTH.values():
        alone = question.metric.scores(outputs, outputs, truth)
        scores |= {name: values for name, values in alone.items() if name.startswith(VALUE)}
    return scores


def _zero_shot(outputs: Outputs, prompts: Prompts) -> Outputs:
    return {LOGITS: prompts.logits(_first(outputs))}


def _first(outputs: Outputs) -> np.ndarray:
    return next(iter(outputs.values()))


def _beside(outputs: Outputs, dense: Outputs, question: Question) -> Scores:
    """Return what stands beside the metric: cosine of features, correlation and relative error of each output."""
    if question.kind == FEATURES and question.prompts is None:
        return {"cosine": cosine(_first(outputs), _first(dense))}
    if question.kind != DENSE:
        return {}
    several = len(outputs) > 1
    scores: Scores = {}
    for name, values in outputs.items():
        of = f" of {name}" if several else ""
        scores[f"correlation{of}"] = correlation(dense[name], values)
        if several or question.metric is not RELATIVE:
            scores[f"relative error{of}"] = relative_error(dense[name], values)
    return scores


def ask(
    manifest: Manifest,
    *,
    metric: Own | None = None,
    classes_from: str | PathLike[str] | None = None,
    masks: str | PathLike[str] | None = None,
    depths: str | PathLike[str] | None = None,
) -> tuple[Question, Targets | None]:
    """Return what is measured of an export's outputs, and the truth of each pixel; arguments as of ``evaluate``.

    Raises:
        InputError: arguments that exclude each other, or do not fit the model's outputs.
    """
    given = {"masks": masks, "depths": depths, "classes_from": classes_from}
    several = [name for name, value in given.items() if value is not None]
    if len(several) > 1:
        raise InputError(f"{' and '.join(several)} each say what is right: give one of them")
    prompts: Prompts | None = None if classes_from is None else read_prompts(classes_from)
    question = question_about(manifest, metric, prompts)
    if masks is None and depths is None:
        return question, None
    targets = Targets(Path(masks), "masks") if masks is not None else Targets(Path(depths or ""), "depths")
    if not any(output.kind == "tensor" for output in manifest.outputs.values()):
        kinds = ", ".join(manifest.outputs) or "logits"
        raise InputError(
            f"--{targets.kind} is for the outputs of a module with a decoder (gtp_export.export_module), and this "
            f"model gives {kinds}: leave it out"
        )
    if not targets.folder.is_dir():
        raise InputError(f"no folder {targets.folder}: --{targets.kind} names the folder of the {targets.kind}")
    return (question if metric is not None else replace(question, metric=OF_TRUTH[targets.kind])), targets


def check_dense(has_dense: bool, question: Question, metric: Own | None) -> None:
    """Raise ``InputError`` where nothing could be measured without the dense baseline."""
    if has_dense:
        return
    if metric is not None or (question.kind == DENSE and question.metric not in OF_TRUTH.values()):
        raise InputError(
            f"{question.metric.name} is measured beside the dense baseline, which is missing here: export with it "
            "(--dense), or give its file"
        )


def images_for(
    folder: str | PathLike[str],
    manifest: Manifest,
    question: Question,
    labels: str | PathLike[str] | None = None,
    class_order: str | None = None,
) -> ImageSet:
    """Return the images below a folder with the classes that a question needs, as ``find_image_set``.

    Raises:
        ImageError, InputError: as ``find_image_set``; labels for outputs that have no classes.
    """
    if not question.has_classes and (labels is not None or class_order is not None):
        raise InputError(f"--labels and --class-order say classes, and {question.metric.name} has none: leave them out")
    if question.prompts is not None:
        names = list(question.prompts.names)
        model = replace(manifest.model, num_classes=len(names))
        manifest = replace(manifest, model=model, labels=names, label_ids=None, class_order=None)
    return find_image_set(folder, manifest, labels, class_order=class_order)
