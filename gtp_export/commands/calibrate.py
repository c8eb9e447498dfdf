"""``gtp-export calibrate``: write a recipe with sparsity thresholds calibrated on images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gtp_export import console
from gtp_export.model_options import ModelOptions, takes_model_options
from gtp_export.options import Model, Preset, Weights, check_names, load_torch, option
from gtp_export.values import share


@takes_model_options()
def calibrate(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="The recipe file to write.", show_default=False)],
    sparsity: Annotated[Any, option("Share of the attention map to keep, in (0, 1).", parser=share, metavar="SHARE")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A folder of training images (default: the recipe's).", show_default=False),
    ] = None,
    preset: Preset = None,
    weights: Weights = "pretrained",
    *,
    model_options: ModelOptions,
) -> None:
    """Calibrate sparsity thresholds on images and write a recipe file with them, ready to export."""
    from gtp_models.recipes import check_recipe_place, write_recipe

    check_names(model, preset=preset)
    if sparsity == 1:
        raise typer.BadParameter("--sparsity 1 keeps the whole map, without a threshold: give a share below 1")
    check_recipe_place(output)
    with console.progress("loading torch") as update:
        load_torch(update)
        from gtp_exporters.subject import calibrate_on
        from gtp_models import GTPConfig, build_model, load_recipe

        recipe = model_options.changed(load_recipe(model), weights)
        update(f"building {recipe.timm}")
        built = build_model(recipe, weights)
        settings = recipe.settings(preset=preset, sparsity=sparsity, threshold="calibrated")
        assert isinstance(settings, GTPConfig)
        config = calibrate_on(built.model, settings, data or recipe.calibration, update, switches=recipe.switches)
        write_recipe(recipe, config, output)
    for text in recipe.choices(config):
        console.note(f"note: {text}")
    console.out.print(f"wrote {output}", markup=False)
    console.next_command("export", output, "--weights", built.path or weights)
