"""Train a run: statistics, autoencoder, latents, denoiser; then score it on validation."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sciladm import cli, recipe
from sciladm.conventions import UserError

if TYPE_CHECKING:
    import torch
    from pandas import DataFrame

    from sciladm.data.dataset import DataSet
    from sciladm.model import Model

log = logging.getLogger(__name__)


def train(
    recipe_path: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe: a YAML file.")],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Take this source of the data set's card alone; absent: the first to be had.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="A netCDF file, a zarr store, a folder or a quoted glob of your own, in place of "
            "the recipe's data. May be repeated.",
        ),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run; absent: runs/RECIPE-SOURCE.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be read, computed and written, and stop; data that are not here "
            "yet are not brought.",
        ),
    ] = False,
    settings: cli.SetOption = None,
    device: cli.DeviceOption = "auto",
    seed: cli.SeedOption = None,
    overwrite: cli.OverwriteOption = False,
    quiet: cli.QuietOption = False,
) -> None:
    """Train what RECIPE describes, or go on with it where it was stopped.

    It says beforehand what it will cost, and ends with scores on the validation split.

    \b
    Examples:
      python -m sciladm.train recipes/era5.yaml
      python -m sciladm.train recipes/tiny.yaml --set denoiser.steps=400 --run-dir runs/longer
      python -m sciladm.train recipes/own-data.yaml --data "fields/*.nc" --dry-run
    """
    changes = cli.parse_settings(settings)
    if data:
        changes |= {"data.path": data, "data.card": None}
    if seed is not None:
        changes["seed"] = seed
    read = recipe.load(recipe_path, changes)
    screen = cli.Screen(quiet)
    where = cli.device(device)

    _train(read, source, run_dir, where, screen, overwrite=overwrite, dry_run=dry_run)


def _train(
    read: recipe.Recipe,
    source: str | None,
    run_dir: Path | None,
    where: "torch.device",
    screen: cli.Screen,
    *,
    overwrite: bool,
    dry_run: bool,
) -> None:
    from sciladm.data.dataset import check_trainable, foretell, open_dataset, settled
    from sciladm.data.durable import writing
    from sciladm.report.tables import print_table
    from sciladm.tasks.cost import tell
    from sciladm.tasks.fit import fit
    from sciladm.tasks.run import run_path

    source, cost, here = foretell(read, source)
    screen.say(cost)
    if dry_run and not here:
        screen.say(f"what it computes, and how long that takes, can be told once they are here\n"
                   f"{read.text()}")  # fmt: skip
        return
    with screen.progress("data") as report:
        opened = open_dataset(read, source, report)
    read = settled(read, opened.frames.times)
    check_trainable(read, opened)
    path = run_dir or run_path(read, opened)
    screen.say(tell(read, opened, path, where))
    if dry_run:
        screen.say(read.text())
        return
    if opened.kind == "simulated":
        screen.say("simulated data: no score of this run is a score on ERA5")
    with writing(path):
        model = fit(read, opened, path, where, overwrite, screen)
        scores = _validated(model, opened, screen)
    if scores is not None and not screen.quiet:
        print_table(scores, headline=read.evaluation.headline or None)
    screen.say(_next(read, path))


def _validated(model: "Model", opened: "DataSet", screen: cli.Screen) -> "DataFrame | None":
    """Scores on validation; None, and why, where the data do not allow them: the run is whole."""
    from sciladm.tasks.validate import validate

    try:
        return validate(model, opened, cli.workers(), screen)
    except UserError as error:
        log.warning("the run is trained, but not scored on validation: %s", error)
        return None


def _next(read: recipe.Recipe, path: Path) -> str:
    asked = f"--lead {read.evaluation.lead} --members {read.evaluation.members}"
    if not read.window.past:
        return f"next:\n  python -m sciladm.infill {path} GAPPY --out filled.zarr"
    return (
        "next:\n"
        f"  python -m sciladm.forecast {path} {asked} --out forecast.zarr\n"
        "  python -m sciladm.evaluate forecast.zarr --out report/"
    )


main = cli.door(train)
if __name__ == "__main__":
    main()
