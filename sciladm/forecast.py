"""Draw an ensemble forecast from a run and write it to zarr."""

from pathlib import Path
from typing import Annotated

import typer

from sciladm import cli


def forecast(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    out: Annotated[Path, typer.Option(metavar="F.zarr", help="Store to write, or to finish.")],
    init: Annotated[
        str | None,
        typer.Option(
            metavar="TIMES",
            help="Initial times: A,B,C or START/STOP/STEP (with STOP), or COUNT of a split, "
            "spread evenly from number FIRST on: test:FIRST:COUNT. Absent: the recipe's, or the "
            "last of --data with fewer than 30 times.",
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
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Files or stores to start from, on the grid and step of the run's own. May be "
            "repeated; a single state will do.",
        ),
    ] = None,
    settings: cli.SetOption = None,
    device: cli.DeviceOption = "auto",
    seed: cli.SeedOption = None,
    batch: cli.BatchOption = "auto",
    overwrite: cli.OverwriteOption = False,
    quiet: cli.QuietOption = False,
) -> None:
    """Write an ensemble forecast of RUN to a zarr store; the same command resumes it.

    \b
    Examples:
      python -m sciladm.forecast runs/era5-simulated --lead 5d --members 16 --out forecast.zarr
      python -m sciladm.forecast RUN --init 2021-03-01T00 --data today.nc --out today.zarr
      python -m sciladm.forecast RUN --init 2021-01-01/2021-03-01/5d --out winter.zarr
    """
    screen = cli.Screen(quiet)
    where, size = cli.device(device), cli.parse_batch(batch)
    changes = cli.parse_settings(settings)

    from sciladm.tasks.run import open_run
    from sciladm.tasks.write import Request, default_init, write_forecast

    model, opened = open_run(run, where, changes, data, screen)
    settled = model.recipe.evaluation
    request = Request(
        out=out,
        init=init or default_init(opened, settled.init),
        leads=cli.parse_lead(lead or settled.lead, model.step),
        members=members or settled.members,
        seed=settled.seed if seed is None else seed,
        workers=cli.workers(size, model.recipe.micro_batch),
        overwrite=overwrite,
    )
    write_forecast(model, opened, request, screen)
    screen.say(f"next: python -m sciladm.evaluate {out} --out report/")


main = cli.door(forecast)
if __name__ == "__main__":
    main()
