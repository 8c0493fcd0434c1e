"""Make copies of training states that differ by a told amount and write them to zarr."""

from pathlib import Path
from typing import Annotated

import typer

from sciladm import cli


def augment(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA", help="Files or stores of states of the training split."),
    ],
    out: Annotated[Path, typer.Option(metavar="F.zarr", help="Store to write.")],
    members: Annotated[int, typer.Option(min=1, metavar="N", help="Copies of each state.")] = 4,
    strength: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="S",
            help="Share of the variance that is new: 0 the originals, 1 draws of the climate.",
        ),
    ] = 0.4,
    settings: cli.SetOption = None,
    device: cli.DeviceOption = "auto",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the draws.")] = 0,
    batch: cli.BatchOption = "auto",
    overwrite: cli.OverwriteOption = False,
    quiet: cli.QuietOption = False,
) -> None:
    """Write copies of the states in DATA, noised and drawn again by RUN; the same command resumes
    it.

    \b
    Examples:
      python -m sciladm.augment runs/sst-local train.nc --out copies.zarr
      python -m sciladm.augment RUN train.nc --members 8 --strength 0.2 --out near.zarr
    """
    screen = cli.Screen(quiet)
    where, size = cli.device(device), cli.parse_batch(batch)
    changes = cli.parse_settings(settings)

    from sciladm.data.store import open_store
    from sciladm.model import Model
    from sciladm.tasks.augment import Asked, write_augment

    model = Model.load(run, where, changes)
    asked = Asked(members, strength, seed, cli.workers(size, model.recipe.micro_batch))
    write_augment(model, open_store(data), asked, out, overwrite, screen)


main = cli.door(augment)
if __name__ == "__main__":
    main()
