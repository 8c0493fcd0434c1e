"""Train a run: statistics, autoencoder, latents, denoiser; then score it on validation."""

from pathlib import Path
from typing import Annotated

import typer

from sciladm import cli, recipe


def train(
    recipe_path: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML).")],
    source: Annotated[str | None, typer.Option(help="Take this source of the card only.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Your own files or stores, in place of the recipe's.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run; absent: runs/RECIPE-SOURCE.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and stop.")
    ] = False,
    settings: cli.SetOption = None,
    device: cli.DeviceOption = "auto",
    seed: cli.SeedOption = None,
    overwrite: cli.OverwriteOption = False,
    quiet: cli.QuietOption = False,
) -> None:
    """Train what RECIPE describes, or go on with it where it was stopped."""
    changes = cli.parse_settings(settings)
    if data:
        changes |= {"data.path": data, "data.card": None}
    if seed is not None:
        changes["seed"] = seed
    read = recipe.load(recipe_path, changes)
    screen = cli.Screen(quiet)
    where = cli.device(device)

    from sciladm.data.dataset import check_trainable, open_dataset, settled
    from sciladm.data.durable import writing
    from sciladm.report.tables import print_table
    from sciladm.tasks.cost import tell
    from sciladm.tasks.fit import fit
    from sciladm.tasks.run import run_path
    from sciladm.tasks.validate import validate

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
        scores = validate(model, opened, cli.workers(), screen)
    if not quiet:
        print_table(scores, headline=read.evaluation.headline or None)
    asked = f"--lead {read.evaluation.lead} --members {read.evaluation.members}"
    screen.say(
        "next:\n"
        f"  python -m sciladm.forecast {path} {asked} --out forecast.zarr\n"
        "  python -m sciladm.evaluate forecast.zarr --out report/"
    )


main = cli.door(train)
if __name__ == "__main__":
    main()
