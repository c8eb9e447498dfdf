"""What is exported: a model with its weights, inputs and outputs."""

from dataclasses import dataclass
from typing import Any

from gtp_exporters.data_config import labels_of, preprocessing_of
from gtp_exporters.options import ExportOptions
from gtp_exporters.reference import ReferenceImages, folder_images, synthetic_images
from gtp_models.heads import gives_features, without_head
from gtp_models.recipes import Recipe
from gtp_models.weights import BuiltModel, build_model
from gtp_runtime.images.preprocessing import Preprocessing


@dataclass(frozen=True)
class Subject:
    """A model that is exported.

    Attributes:
        built: the timm model and where its weights come from.
        preprocessing: turns an image into the input.
        classes: number of classes; 0 if the output is features.
        labels, label_ids: class names, and further ids of the same classes; None where unknown.
        notes: what users should know about it.
    """

    built: BuiltModel
    preprocessing: Preprocessing
    classes: int
    labels: list[str] | None
    label_ids: list[str] | None
    notes: tuple[str, ...]

    @property
    def model(self) -> Any:
        """The timm model."""
        return self.built.model

    @property
    def output(self) -> str:
        """The name of the first output."""
        return "logits" if self.classes else "features"


def make_subject(recipe: Recipe, weights: str, seed: int, options: ExportOptions) -> Subject:
    """Build a recipe's model and find out its inputs and outputs.

    Raises:
        ModelsError: the model cannot be built, its weights are not available, or there is no head to keep.
    """
    built = build_model(without_head(recipe) if options.head == "none" else recipe, weights, seed)
    features, note = gives_features(built.model, recipe.timm, options.head)
    classes = 0 if features else built.model.num_classes
    labels, label_ids = labels_of(built.recipe, classes)
    notes = (*built.notes, *([note] if note else []))
    return Subject(built, preprocessing_of(built.model), classes, labels, label_ids, notes)


def reference_images(subject: Subject, options: ExportOptions) -> ReferenceImages:
    """Read the images of the reference: those of ``--data``, else the recipe's own, else synthetic ones.

    Raises:
        ImageError: no images, or one that cannot be read.
    """
    own = subject.built.recipe.images
    known = (subject.preprocessing, subject.labels, subject.label_ids, subject.classes)
    if options.data is not None:
        return folder_images(options.data, *known)
    if own is not None:
        return folder_images(own, *known, limit=None, origin="the recipe's own")
    return synthetic_images(subject.preprocessing.crop)
