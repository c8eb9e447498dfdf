"""Measures accuracy on a folder of any size: images are read in threads, and what is kept does not grow."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from os import PathLike
from typing import Any

import numpy as np

from gtp_runtime.accuracy import Accuracy, score
from gtp_runtime.checkpoint import Checkpoint
from gtp_runtime.errors import ImageError
from gtp_runtime.image_set import ImageSet, find_image_set
from gtp_runtime.model import Model
from gtp_runtime.progress import Progress, quiet
from gtp_runtime.read_ahead import count_workers, read_ahead

Inputs = list[np.ndarray]  # one image, preprocessed for each file
CHUNK = 16  # images that are scored at once, at least


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
        labels: a file that says the class of each image (``gtp_runtime.label_files``), in place of sub-folders.
        strict: the first image that cannot be read is an error.
        workers: threads that read images; None is one for each CPU.
        resume: a file that keeps how far the evaluation is. If it is there, the evaluation goes on from it.

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
    return evaluate_each([model], dense, images, progress, strict=strict, workers=workers, resume=kept)[0]


def evaluate_each(
    models: Sequence[Model],
    dense: Model | None,
    images: ImageSet,
    progress: Progress = quiet,
    *,
    strict: bool = False,
    workers: int | None = None,
    resume: Sequence[str | PathLike[str]] | None = None,
) -> list[Accuracy]:
    """Accuracy of several files, each beside the same dense baseline: as ``evaluate``, reading every image once.

    Args:
        models: the files, one or more.
        dense: the dense baseline of all; it runs once for each image.
        images: what ``find_image_set`` found.
        progress, strict, workers: as for ``evaluate``.
        resume: for each of ``models`` a file of its own, as for ``evaluate``.

    Raises:
        as ``evaluate``.
    """
    for model in models:
        model.check_classes("accuracy")
    threads = count_workers(workers)
    places = [None] * len(models) if resume is None else list(resume)
    states = [Checkpoint(place, _key(model, dense, images)) for model, place in zip(models, places, strict=True)]
    for state in states:
        state.write()  # a place that cannot be written is said before the work
    try:
        _run([*models, *([] if dense is None else [dense])], images, states, progress, strict, threads)
    finally:
        for state in states:
            state.write()
    tally = states[0].tally
    if not tally.images:
        raise ImageError(f"none of the {len(images)} images can be read: {tally.unreadable_images[0]}")
    return [state.tally.accuracy(images.by_order) for state in states]


def _key(model: Model, dense: Model | None, images: ImageSet) -> dict[str, Any]:
    """What the sums of an evaluation depend on."""
    files = {"model": model, **({} if dense is None else {"dense": dense})}
    answers = {
        name: [
            file.entry.sha256,
            file.backend.name,
            *(str(file.backend.info.get(key)) for key in ("provider", "compute")),
        ]
        for name, file in files.items()
    }
    return {**answers, "images": len(images), "names_and_classes": images.digest()}


def _run(
    files: list[Model], images: ImageSet, states: list[Checkpoint], progress: Progress, strict: bool, workers: int
) -> None:
    """Score ``files``, one for each of ``states`` and then the dense baseline, from where the first of them is."""

    def read(index: int) -> Inputs | ImageError:
        try:
            return _preprocess(files, images.path(index))
        except ImageError as error:
            return error

    batch = max(file.batch for file in files)
    size = -(-CHUNK // batch) * batch
    start = min(state.done for state in states)
    with closing(read_ahead(read, range(start, len(images)), workers)) as found:
        for part in _chunks(found, size):
            done = part[-1][0] + 1
            _score(files, images, part, states, strict)
            for state in states:
                state.advance(max(done, state.done))
            progress("measuring accuracy", done / len(images))


def _preprocess(files: list[Model], path: Any) -> Inputs:
    """Preprocess an image once for all files that take it alike."""
    first = files[0].preprocess(path)
    alike = [_takes(file) == _takes(files[0]) for file in files]
    return [first if same else file.preprocess(path) for file, same in zip(files, alike, strict=True)]


def _takes(file: Model) -> Any:
    return file.manifest.preprocessing, file.entry.inputs[0].dtype


Part = list[tuple[int, "Inputs | ImageError"]]


def _chunks(found: Iterable[tuple[int, "Inputs | ImageError"]], size: int) -> Iterator[Part]:
    part: Part = []
    for entry in found:
        part.append(entry)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _score(files: list[Model], images: ImageSet, part: Part, states: list[Checkpoint], strict: bool) -> None:
    readable: list[tuple[int, Inputs]] = []
    for index, entry in part:
        if not isinstance(entry, ImageError):
            readable.append((index, entry))
        elif strict:
            raise entry
        else:
            for state in states:
                if index >= state.done:
                    state.tally.add_unreadable(str(entry))
    if readable:
        _add(files, images, readable, states)


def _add(files: list[Model], images: ImageSet, part: list[tuple[int, Inputs]], states: list[Checkpoint]) -> None:
    """Add the scores of images to the sums of each file that does not have them yet."""
    indices = np.array([index for index, _ in part])
    names = [images.path(index) for index in indices]

    def logits(number: int) -> np.ndarray:
        return files[number].logits(np.stack([inputs[number] for _, inputs in part]), names)

    dense = logits(-1) if len(files) > len(states) else None
    for number, state in enumerate(states):
        new = indices >= state.done
        if new.any():
            classes = None if images.classes is None else images.classes[indices[new]]
            scores = score(logits(number)[new], None if dense is None else dense[new], classes)
            state.tally.add(scores, int(new.sum()))
