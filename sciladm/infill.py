"""Fill the gaps of gridded data with an ensemble from a run, and write it to zarr."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sciladm import cli
from sciladm.conventions import UserError

if TYPE_CHECKING:
    from sciladm.observe import Operator
    from sciladm.tasks.wide import Tiles
    from sciladm.tasks.withhold import Withhold


PointsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="T.csv",
        help="Observations between cells: columns time, one for each axis of the grid, value, "
        "error and, where there are several, variable and level.",
    ),
]
MeansOption = Annotated[
    Path | None, typer.Option(metavar="C.nc", help="Means over the cells of a coarser grid.")
]
MeansErrorOption = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]STD", help="Standard error of the means. Absent: 0."),
]
ErrorOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]STD",
        help="Standard error of what was observed, in the unit of the variable; by name where "
        "there are several, once for each. Absent: 0, and observed values stay as they are.",
    ),
]
EvaluationsOption = Annotated[
    int,
    typer.Option("--evaluations", "--steps", min=12, metavar="N", help="Of the network a draw."),
]
TolOption = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Share of the observations' equations that a draw may leave unsolved. Absent: 0.05, "
        "oi 0.01. Where more is left a warning says so, and the attribute infill_solved is 0.",
    ),
]
WithholdOption = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE|MASK.nc",
        help="Hide this share of the cells, or those where a mask is true, to score the fill "
        "there: evaluate F.zarr --truth GAPPY.",
    ),
]
OutputOption = Annotated[
    str,
    typer.Option(metavar="members|mean_std|quantiles", help="The ensemble, or what it says."),
]
TilesOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|CELLS",
        help="GAPPY may be larger than the run's grid, which covers it by tiles that overlap by "
        "at least twice so many cells (auto: half a tile); one time after another is written. For "
        "runs on a plane whose places are all alike.",
    ),
]


def infill(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    out: Annotated[Path, typer.Option(metavar="F.zarr", help="Store to write.")],
    gappy: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="GAPPY",
            help="Files or stores with NaN where values are missing. Absent: nothing is known at "
            "the times of the points and means.",
        ),
    ] = None,
    members: Annotated[int, typer.Option(min=1, metavar="N", help="Ensemble size.")] = 16,
    obs_error: ErrorOption = None,
    points: PointsOption = None,
    means: MeansOption = None,
    means_error: MeansErrorOption = None,
    withhold: WithholdOption = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="auto|amortised|guided|oi",
            help="By a denoiser that was trained with masks (denoiser.masks), by any denoiser, or "
            "by optimal interpolation, the baseline. auto: the first, where the run has it and "
            "cells alone were observed, else the second.",
        ),
    ] = "auto",
    output: OutputOption = "members",
    evaluations: EvaluationsOption = 24,
    tol: TolOption = None,
    tiles: TilesOption = None,
    device: cli.DeviceOption = "auto",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the draws.")] = 0,
    batch: cli.BatchOption = "auto",
    overwrite: cli.OverwriteOption = False,
    quiet: cli.QuietOption = False,
) -> None:
    """Write an ensemble of what is missing in GAPPY, as RUN has learnt such fields.

    \b
    Examples:
      python -m sciladm.infill runs/sst clouds.nc --out filled.zarr
      python -m sciladm.infill RUN buoys.nc --obs-error sst=0.2 --output mean_std --out map.zarr
      python -m sciladm.infill RUN whole.nc --withhold 0.1 --out test.zarr
      python -m sciladm.infill RUN --means coarse.nc --points stations.csv --out fine.zarr
    """
    screen = cli.Screen(quiet)
    where, size = cli.device(device), cli.parse_batch(batch)
    error, broad = _errors(obs_error, "--obs-error"), _errors(means_error, "--means-error")

    from sciladm.data.store import open_store
    from sciladm.model import Model
    from sciladm.tasks.assimilate import told_alone
    from sciladm.tasks.infill import Wish
    from sciladm.tasks.withhold import withheld
    from sciladm.tasks.write_fill import write_infill

    model = Model.load(run, where)
    count = cli.workers(size, model.recipe.micro_batch)
    told = _told(gappy, points, means, broad, error)
    asked = open_store(gappy) if gappy else told_alone(model, told)
    if withhold is not None:
        if not gappy:
            raise UserError("--withhold without GAPPY: there is no cell to hide")
        asked = withheld(model, asked, _share(withhold), seed)
    wish = Wish(
        members, error, method, output, evaluations, seed, count, tuple(told), tol, _tiles(tiles)
    )
    write_infill(model, asked, wish, out, overwrite, screen)


def _told(
    gappy: list[str] | None, points: Path | None, means: Path | None, error: Any, obs_error: Any
) -> list["Operator"]:
    """What was observed besides cells."""
    from sciladm.data.store import open_store
    from sciladm.observe import AreaMean, Points

    if error and means is None:
        raise UserError("--means-error without --means")
    told: list[Operator] = [Points.read(points)] if points else []
    if means:
        told.append(AreaMean(open_store([str(means)]), error))
    if obs_error and not gappy:
        raise UserError("--obs-error without GAPPY: no cell is observed")
    if not (gappy or told):
        raise UserError("nothing is asked: give GAPPY, --points or --means")
    return told


def _share(told: str) -> "Withhold":
    """A number, or a file of masks."""
    from sciladm.data.store import open_store

    try:
        return float(told)
    except ValueError:
        return open_store([told])


def _tiles(told: str | None) -> "Tiles | None":
    """As `Wish` has it."""
    if told is None or told == "auto":
        return cast("Tiles | None", told)
    try:
        return int(told)
    except ValueError:
        raise UserError(f"--tiles {told}: write auto, or a number of cells") from None


def _errors(told: list[str] | None, option: str) -> float | dict[str, float]:
    """``["0.2"]`` or ``["sst=0.2", …]`` → a number, or by name."""
    parts = [text.rpartition("=") for text in told or ()]
    try:
        found = {name: float(number) for name, _, number in parts}
    except ValueError:
        raise UserError(
            f"{option} {' '.join(told or ())}: write a number, or NAME=NUMBER"
        ) from None
    if "" not in found:
        return found or 0.0
    if len(parts) > 1:
        raise UserError(f"{option}: one number alone, or NAME=NUMBER for each variable")
    return found[""]


main = cli.door(infill)
if __name__ == "__main__":
    main()
