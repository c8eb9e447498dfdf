"""The front model: Triton batches requests for it, and it hands them to the graphs for fixed numbers of images."""

import shutil
from pathlib import Path
from typing import Any

from gtp_exporters.triton.config import TritonOptions, Word, pbtxt, tensors
from gtp_exporters.triton.models import VERSION, Source, write_labels

DELAY_US = 1000


def write_front(sources: list[Source], names: list[str], folder: Path, options: TritonOptions) -> None:
    """Write the folder of the front model, for Triton's Python backend.

    Args:
        sources: the same model for several numbers of images, the fewest first.
        names: those of their models.
        folder: the front model's.
        options: how Triton runs it.

    Raises:
        OSError: it cannot be written.
    """
    (folder / VERSION).mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("batching.py"), folder / VERSION / "model.py")
    largest, batches = sources[-1], [source.batch for source in sources]
    values: dict[str, Any] = {
        "name": folder.name,
        "backend": "python",
        "max_batch_size": largest.batch,
        "input": tensors(largest.entry.inputs, without_batch=True),
        "output": tensors(largest.entry.outputs, write_labels(largest.manifest, folder), without_batch=True),
        "instance_group": [{"count": options.instances, "kind": Word("KIND_CPU")}],  # it only cuts and joins arrays
        "dynamic_batching": {
            "preferred_batch_size": batches,
            "max_queue_delay_microseconds": DELAY_US if options.max_delay_us is None else options.max_delay_us,
        },
        "parameters": [
            {"key": f"model_{batch}", "value": {"string_value": name}}
            for batch, name in zip(batches, names, strict=True)
        ],
    }
    (folder / "config.pbtxt").write_text(pbtxt(values), "ascii")
