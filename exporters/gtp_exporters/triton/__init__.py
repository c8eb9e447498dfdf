"""A Triton Inference Server model repository from artifact directories.

An export for a range of batches becomes a model that Triton's dynamic batcher gathers requests for. One for a number
of images takes no other: it becomes a model without batching (``max_batch_size: 0``). Where the same model was exported
for several numbers, a front model gathers requests and hands them to the graph that fits.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gtp_exporters.triton.models import TritonOptions, find_sources, write_front, write_model
from gtp_runtime.errors import OutputError

__all__ = ["TritonOptions", "write_repository"]


def write_repository(paths: Sequence[Path], repository: Path, options: TritonOptions | None = None) -> list[Path]:
    """Write the models of one or several exports into a model repository, and return their folders.

    Args:
        paths: artifact directories, or files of them (.onnx, .engine); several are the same model, exported for other
            numbers of images.
        repository: the folder that Triton is given; other models there stay as they are.
        options: how Triton runs them.

    Raises:
        LimitError: files that cannot be served so, or several that are not one model.
        ManifestError: a file that is missing or not what its manifest says.
        OutputError: a model of this name is there already, or the place cannot be written.
        BackendMissingError: OpenVINO, which converts for its own backend, is not installed.
    """
    options = options or TritonOptions()
    sources = find_sources(paths, options)
    several = len(sources) > 1
    names = [f"{source.name}_b{source.batch}" if several else source.name for source in sources]
    everything = [*names, *([sources[0].name] if several else [])]
    for name in everything:
        if (repository / name).exists():
            raise OutputError(f"{repository / name} is there already: move it away, or choose another --name")
    try:
        with _staged(repository, everything) as place:
            for source, name in zip(sources, names, strict=True):
                write_model(source, place / name, options)
            if several:
                write_front(sources, names, place / sources[0].name, options)
    except OSError as error:
        raise OutputError(f"cannot write {repository}: {error.strerror or error}; choose another -o") from error
    return [repository / name for name in everything]


@contextmanager
def _staged(repository: Path, names: list[str]) -> Iterator[Path]:
    """Yield a hidden folder to write models in; they are moved to their places at the end, the front model last."""
    repository.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=".gtp-export-", dir=repository))
    try:
        yield place
        for name in names:
            (place / name).rename(repository / name)
    finally:
        with suppress(OSError):
            shutil.rmtree(place)
