"""Draw states from the climate that a run has learnt and write them to zarr."""

from pathlib import Path
from typing import Annotated

import typer

from sciladm import cli


def generate(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run trained with window.past: 0.")
    ],
    n: Annotated[int, typer.Option("--n", min=1, metavar="N", help="How many samples.")],
    out: Annotated[Path, typer.Option(metavar="F.zarr", help="Store to write.")],
    like: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="Files or stores whose times the samples have, in order and over again. May be "
            "repeated. Absent: training times, drawn by the seed.",
        ),
    ] = None,
    settings: cli.SetOption = None,
    device: cli.DeviceOption = "auto",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the draws.")] = 0,
    batch: cli.BatchOption = "auto",
    overwrite: cli.OverwriteOption = False,
    quiet: cli.QuietOption = False,
) -> None:
    """Write states that might have been, drawn from the climate of RUN's training data; the same
    command resumes it.

    \b
    Examples:
      python -m sciladm.generate runs/sst-local --n 100 --out drawn.zarr
      python -m sciladm.generate RUN --n 90 --like winter.nc --out winters.zarr
    """
    screen = cli.Screen(quiet)
    where, size = cli.device(device), cli.parse_batch(batch)
    changes = cli.parse_settings(settings)

    from sciladm.data.store import open_store
    from sciladm.model import Model
    from sciladm.tasks.generate import write_generate

    model = Model.load(run, where, changes)
    workers = cli.workers(size, model.recipe.micro_batch)
    there = open_store(like) if like else None
    write_generate(model, n, there, seed, workers, out, overwrite, screen)


main = cli.door(generate)
if __name__ == "__main__":
    main()
