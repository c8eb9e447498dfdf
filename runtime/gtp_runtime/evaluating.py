"""Measures accuracy on a folder of any size: images are read in threads, and what is kept does not grow."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from os import PathLike
from typing import Any

from gtp_runtime.accuracy import Accuracy
from gtp_runtime.checkpoint import Checkpoint
from gtp_runtime.errors import ImageError
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.images.labels import find_image_set
from gtp_runtime.model import Model
from gtp_runtime.progress import Progress, quiet
from gtp_runtime.read_ahead import count_workers
from gtp_runtime.scoring import Job, Scoring, score_images


def evaluate(
    model: Model,
    dense: Model | None,
    data: str | PathLike[str] | ImageSet,
    progress: Progress = quiet,
    *,
    by_order: bool = False,
    labels: str | PathLike[str] | None = None,
    strict: bool = False,
    workers: int | None = None,
    resume: str | PathLike[str] | None = None,
    scoring: Scoring = score_images,
) -> Accuracy:
    """Accuracy on a folder of images of any size, beside the dense baseline's.

    Images are read and preprocessed in threads, once for both files. Those that cannot be read are counted and named.

    Args:
        model: the file.
        dense: its dense baseline; None where there is none.
        data: a folder, or what ``find_image_set`` made of it. Its sub-folders are the classes, named as
            ``class_indices`` says; images in the folder itself have no class.
        progress: told "measuring accuracy" and the share done.
        by_order: sub-folders in alphabetical order are the classes 0, 1, ..., whatever their names.
        labels: a file that says the class of each image (``gtp_runtime.images.labels``), in place of sub-folders.
        strict: the first image that cannot be read is an error.
        workers: threads that read images; None is one for each CPU.
        resume: a file that keeps how far the evaluation is. If it is there, the evaluation goes on from it.
        scoring: what scores the images: this process, or a fleet's nodes (``gtp_runtime.fleet``).

    Raises:
        NoClassesError: a model that gives features.
        ImageError: no images, none that can be read, sub-folders or labels that do not fit; with ``strict``, one image
            that cannot be read.
        InputError: a folder that is no path, options that exclude each other, a ``resume`` of another evaluation.
        AnswerError: an answer that is not finite.
    """
    model.check_classes("accuracy")
    images = data if isinstance(data, ImageSet) else find_image_set(data, model.manifest, labels, by_order=by_order)
    kept = None if resume is None else [resume]
    reading: Any = {"strict": strict, "workers": workers, "scoring": scoring}
    return evaluate_each([model], dense, images, progress, resume=kept, **reading)[0]


def evaluate_each(
    models: Sequence[Model],
    dense: Model | None,
    images: ImageSet,
    progress: Progress = quiet,
    *,
    strict: bool = False,
    workers: int | None = None,
    resume: Sequence[str | PathLike[str]] | None = None,
    scoring: Scoring = score_images,
) -> list[Accuracy]:
    """Accuracy of several files, each beside the same dense baseline: as ``evaluate``, reading every image once.

    Args:
        models: the files, one or more.
        dense: the dense baseline of all; it runs once for each image.
        images: what ``find_image_set`` found.
        progress, strict, workers, scoring: as for ``evaluate``.
        resume: for each of ``models`` a file of its own, as for ``evaluate``.

    Raises:
        as ``evaluate``.
    """
    for model in models:
        model.check_classes("accuracy")
    count_workers(workers)  # refused before the work
    places = [None] * len(models) if resume is None else list(resume)
    stamp = "" if resume is None else images.stamp()
    states = [Checkpoint(place, _key(model, dense, stamp)) for model, place in zip(models, places, strict=True)]
    for state in states:
        state.write()  # a place that cannot be written is said before the work
    job = Job(list(models), dense, images, [state.done for state in states], strict, workers)
    try:
        _run(job, states, scoring, progress)
    finally:
        for state in states:
            state.write()
    tally = states[0].tally
    if not tally.images:
        raise ImageError(f"none of the {len(images)} images can be read: {tally.unreadable_images[0]}")
    return [state.tally.accuracy(images.by_order) for state in states]


def _run(job: Job, states: Sequence[Checkpoint], scoring: Scoring, progress: Progress) -> None:
    with closing(scoring(job, range(min(job.done), len(job.images)))) as found:
        for scored in found:
            for number, state in enumerate(states):
                state.add(scored, number)
            progress("measuring accuracy", scored.stop / len(job.images))


def _key(model: Model, dense: Model | None, images: str) -> dict[str, Any]:
    """What the sums of an evaluation depend on; ``images`` stands for them."""
    files = {"model": model, **({} if dense is None else {"dense": dense})}
    answers = {
        name: [
            file.entry.sha256,
            file.backend.name,
            *(str(file.backend.info.get(key)) for key in ("version", "provider", "compute")),
        ]
        for name, file in files.items()
    }
    preprocessing = {f"preprocessing of {name}": asdict(file.manifest.preprocessing) for name, file in files.items()}
    return {**answers, **preprocessing, "images": images}
