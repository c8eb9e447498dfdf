"""``compare_module``: ``compare`` of a whole module around one supported ViT, by its own outputs."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from gtp_exporters.measuring.comparison import CompareOptions, Comparison
from gtp_exporters.measuring.graphs import Source
from gtp_exporters.measuring.grid import compare_source
from gtp_exporters.whole import check_has_own_outputs, module_subject
from gtp_models.methods import make_settings
from gtp_runtime.images.preprocessing import Preprocessing
from gtp_runtime.messages import Progress, quiet


def compare_module(
    module: nn.Module,
    images: Float[Tensor, "n 3 height width"],
    output: Path | str,
    *,
    options: CompareOptions,
    backbone: str | None = None,
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
    progress: Progress = quiet,
) -> Comparison:
    """Compare methods in a module, patched, with the dense module: distance of its outputs, latency and size.

    The whole module is exported, measured and timed; budgets are shares of the ViT's MACs. The distance is the relative
    error of the outputs, mIoU or AbsRel where ``options`` have ``masks`` or ``depths``, or a metric of yours.
    ``Result.made_settings`` are a row's settings for ``export_module``.

    One that was stopped resumes if it is started again with the same arguments.

    Args:
        module: as of ``export_module``; it stays as it is.
        images: preprocessed, as of ``export_module``; int8 is judged on them.
        output: a directory for compare.json, compare.md and compare.svg.
        options: what is compared and how. ``data`` is needed, a folder of image files; fitted schedules need
            ``calib_data``. ``output`` and ``layers`` stay at their defaults.
        backbone, preprocessing, name: as of ``export_module``.
        progress: called with the current task.

    Raises:
        UnsupportedModelError, ConfigError: as ``export_module``.
        LimitError, OutputError, ImageError, GTPRuntimeError: as ``compare``; no ``data``.
    """
    check_has_own_outputs(options.output, options.layers)
    subject = module_subject(module, images, make_settings("dense"), backbone, preprocessing, name)
    return compare_source(Source(subject.built.recipe, taken=subject), Path(output), options, progress=progress)
