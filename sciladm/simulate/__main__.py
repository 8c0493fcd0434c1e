"""Simulate the perfect-model ensemble of a world whose truth is known, as a forecast store."""

from pathlib import Path
from typing import Annotated

import typer

from sciladm import cli
from sciladm import recipe as recipes
from sciladm.conventions import UserError, parse_duration


def simulate(
    origin: Annotated[
        Path, typer.Argument(metavar="RUN|RECIPE", help="Whose data are simulated.")
    ],
    out: Annotated[Path, typer.Option(metavar="F.zarr", help="Store to write, or to finish.")],
    init: Annotated[
        str | None,
        typer.Option(
            metavar="TIMES",
            help="Initial times: A,B,C or START/STOP/STEP or test:FIRST:COUNT; absent: the "
            "recipe's.",
        ),
    ] = None,
    lead: Annotated[
        str | None,
        typer.Option(
            metavar="LEAD", help="Last lead time: 5d, 36h or 1step; absent: the recipe's."
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Ensemble size; absent: the recipe's."),
    ] = None,
    source: Annotated[
        str, typer.Option(metavar="NAME", help="The simulated source of the data set's card.")
    ] = "simulated",
    settings: cli.SetOption = None,
    device: cli.DeviceOption = "cpu",
    seed: cli.SeedOption = None,
    batch: cli.BatchOption = "auto",
    overwrite: cli.OverwriteOption = False,
    quiet: cli.QuietOption = False,
) -> None:
    """Simulate the perfect-model ensemble: the truth's own state, other noise.

    No forecast of a simulated world can be better; `evaluate` scores it beside one. It is computed
    on the CPU, in the same steps whatever --batch says.

    \b
    Examples:
      python -m sciladm.simulate runs/era5-simulated --lead 5d --members 16 --out perfect.zarr
    """
    from sciladm.data.dataset import open_dataset
    from sciladm.tasks.perfect import perfect

    screen = cli.Screen(quiet)
    changes = cli.parse_settings(settings)
    cli.parse_batch(batch)
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: the simulator runs on the cpu alone")
    if origin.is_dir():
        if not (origin / "recipe.yaml").is_file():
            raise UserError(f"{origin} is no run: it lacks recipe.yaml; give a run or a recipe")
        recipe = recipes.after_training(recipes.load(origin / "recipe.yaml"), changes)
    else:
        recipe = recipes.load(origin, changes)
    leads = cli.parse_lead(lead or recipe.evaluation.lead, parse_duration(recipe.window.step))
    with screen.progress("data") as report:
        data = open_dataset(recipe, source if recipe.data.card else None, report)
    perfect(
        recipe, data, out, leads, init=init, members=members, seed=seed,
        run=origin.resolve().name if origin.is_dir() else "", overwrite=overwrite, voice=screen,
    )  # fmt: skip
    screen.say(f"wrote {out}; score beside it: python -m sciladm.evaluate F.zarr {out} --out DIR")


main = cli.door(simulate)

if __name__ == "__main__":
    main()
