"""Score forecasts or filled gaps against the truth, beside baselines, and write the report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from sciladm import cli
from sciladm.conventions import format_duration

if TYPE_CHECKING:
    from sciladm.report import MapPanel
    from sciladm.tasks.score import Example, Scored


def evaluate(
    forecasts: Annotated[
        list[Path],
        typer.Argument(metavar="F.zarr", help="Stores of forecasts, or of filled gaps."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the report.")],
    truth: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Score against these; absent: the run's own data."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Run behind the forecasts; absent: looked for by its name in runs/ and beside "
            "the store.",
        ),
    ] = None,
    settings: cli.SetOption = None,
    device: cli.DeviceOption = "auto",
    seed: cli.SeedOption = None,
    batch: cli.BatchOption = "auto",
    overwrite: cli.OverwriteOption = False,
    quiet: cli.QuietOption = False,
) -> None:
    """Score forecasts, or filled gaps, against the truth: DIR/index.html and its tables.

    Several stores are compared on the initial times and leads that they share. Fills are scored
    where the truth has a value that they were not given. A report that is there is replaced, a
    folder that is none never, with --overwrite or without; of forecasts one initial time is in
    memory at once, whatever --batch says, of fills all times.

    \b
    Examples:
      python -m sciladm.evaluate forecast.zarr --out report/
      python -m sciladm.evaluate forecast.zarr perfect.zarr --out report/
      python -m sciladm.evaluate other.zarr --truth analyses.zarr --run RUN --out report/
      python -m sciladm.evaluate filled.zarr --truth whole.nc --out report/
    """
    from sciladm.report import print_table, write_report
    from sciladm.report.page import check_folder

    cli.parse_batch(batch)
    check_folder(out)

    from sciladm.tasks.fills import are_fills
    from sciladm.tasks.score import score
    from sciladm.tasks.score_fills import score_fills

    screen = cli.Screen(quiet)
    changes = cli.parse_settings(settings)
    if seed is not None:
        changes["evaluation.seed"] = seed
    task = score_fills if are_fills(forecasts) else score
    found = task(forecasts, truth, run, changes, cli.device(device), screen)
    write_report(
        out, found.scores, found.ranks, found.spectra, found.comparisons,
        [panel(found, example) for example in found.examples], found.provenance, found.notes,
        found.headline, found.units,
    )  # fmt: skip
    for note in found.notes:
        screen.say(note)
    print_table(found.scores, found.headline)
    screen.say(f"report: {out / 'index.html'}")


def panel(found: "Scored", example: "Example") -> "MapPanel":
    """Truth, mean and three members as anomalies from climatology; spread and error beside."""
    from sciladm.report import MapPanel
    from sciladm.report.style import words

    y, x = found.fields.grid.axes[-2:]

    def flat(field: np.ndarray) -> np.ndarray:
        """The middle layer of a volume."""
        while field.ndim > 2:
            field = field[len(field) // 2]
        return field

    mean = example.members.mean(axis=0)
    fields = [] if example.seen is None else [("observed", example.seen - example.centre)]
    fields += [("truth", example.truth - example.centre), ("ensemble mean", mean - example.centre)]
    fields += [
        (f"member {m}", member - example.centre) for m, member in enumerate(example.members[:3])
    ]
    fields += [
        ("spread", example.members.std(axis=0, ddof=1 if len(example.members) > 1 else 0)),
        ("error of the mean", mean - example.truth),
    ]
    when = str(example.init.astype("M8[h]"))
    if example.lead:
        when += f" + {format_duration(example.lead)}"
    return MapPanel(
        f"{words(example.variable)}, anomaly, {when}",
        example.units, y.values, x.values, [(label, flat(field)) for label, field in fields],
    )  # fmt: skip


main = cli.door(evaluate)

if __name__ == "__main__":
    main()
