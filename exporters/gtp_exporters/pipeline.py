"""The export: a model in, an artifact directory out."""

from dataclasses import dataclass
from pathlib import Path

from gtp_exporters.artifacts import Artifacts, Progress
from gtp_exporters.calibrating import calibrate_on
from gtp_exporters.directory import check_place, written_whole
from gtp_exporters.limits import check_settings
from gtp_exporters.options import Options
from gtp_models.gtp.config import GTPConfig
from gtp_models.heads import gives_features, without_head
from gtp_models.macs import cost
from gtp_models.recipes import Recipe, load_recipe
from gtp_models.rivals import config_of
from gtp_models.schedules import make_schedule
from gtp_models.weights import build_model
from gtp_runtime.images import find_images
from gtp_runtime.manifest import Manifest


@dataclass(frozen=True)
class Exported:
    """What an export wrote: its directory, the manifest, and what people should know."""

    directory: Path
    manifest: Manifest
    notes: tuple[str, ...]


def export(
    model: str | Recipe,
    output: Path | str | None = None,
    *,
    config: GTPConfig | None = None,
    weights: str = "pretrained",
    img_size: tuple[int, int] | None = None,
    seed: int = 0,
    options: Options | None = None,
    progress: Progress = lambda text: None,
) -> Exported:
    """Export a model, patched with GTP, and its dense twin as static ONNX with all that a device needs.

    Args:
        model: a recipe, its name, ``timm:NAME`` or a recipe file.
        output: the artifact directory; ``build/NAME`` without. An earlier export there is replaced.
        config: GTP settings, the recipe's without (for ``timm:NAME`` those that ``load_recipe`` chooses).
        weights: "pretrained", a path, "random" or "auto" (see ``gtp_models.build_model``).
        img_size: (height, width) in pixels, the model's own without.
        seed: of random weights.
        options: how to export.
        progress: told in words what is being done.

    Raises:
        LimitError: settings that the target cannot build; before anything is traced.
        StaticCheckError: a graph that is not static.
        OutputError: a place that cannot be written.
        ModelsError, GTPRuntimeError: from models, weights and images.
    """
    recipe = load_recipe(model, img_size) if isinstance(model, str) else model
    options = options or Options()
    config = config_of(options.method, config or recipe.config())
    directory = Path(output) if output else Path("build") / recipe.name
    check_place(directory)  # before anything takes time
    if options.data is not None:
        find_images(options.data)
    progress(f"building {recipe.timm}")
    built = build_model(without_head(recipe) if options.head == "none" else recipe, weights, img_size, seed)
    features, note = gives_features(built.model, recipe.timm, options.head)
    costs = cost(built.model, config, options.method)
    if options.schedule:
        config = make_schedule(built.model, config, options.schedule, options.budget or costs.backbone, options.method)
        costs = cost(built.model, config, options.method)
    if config.threshold == "calibrated" and config.sparsity < 1 and config.calibration is None:
        progress("calibrating thresholds")
        config = calibrate_on(built.model, config, options.calib_data or recipe.calibration)
    notes = [*([note] if note else []), *recipe.choices(config)]
    check_settings(config, [layer.tokens_in for layer in costs.layers], options.target)
    with written_whole(directory) as temporary:
        artifacts = Artifacts(built, config, options, costs, temporary, progress, features, notes)
        manifest = artifacts.write()
    return Exported(directory, manifest, tuple(artifacts.notes))
