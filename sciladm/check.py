"""Check synthetic fields against real ones: copies, spectra, values, seasons, and a verdict."""

from pathlib import Path
from typing import Annotated

import typer

from sciladm import cli


def check(
    synthetic: Annotated[
        list[str],
        typer.Argument(metavar="SYNTHETIC", help="Files or stores of samples to be checked."),
    ],
    train: Annotated[
        list[str],
        typer.Option(metavar="A", help="Real fields that the samples were learnt from."),
    ],
    test: Annotated[
        list[str], typer.Option(metavar="B", help="Real fields of other years, never learnt from.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the report.")],
    shortest: Annotated[
        float,
        typer.Option(min=2, metavar="CELLS", help="Shortest wavelength of which spectra count."),
    ] = 2.0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the real sets.")] = 0,
    quiet: cli.QuietOption = False,
) -> None:
    """Score SYNTHETIC against real fields, print a verdict, write DIR/index.html and scores.csv.

    The exit code is 0 whatever the verdict.

    \b
    Examples:
      python -m sciladm.check drawn.zarr --train train.nc --test test.nc --out check/
      python -m sciladm.check drawn.zarr --train A --test B --shortest 6 --out check/
    """
    from sciladm.data.store import open_store
    from sciladm.report.faithfulness import write_check
    from sciladm.report.page import check_folder
    from sciladm.tasks.check import check_augmentation

    check_folder(out)
    screen = cli.Screen(quiet)
    scores = check_augmentation(
        open_store(synthetic), open_store(train), open_store(test), seed, shortest
    )
    write_check(out, scores)
    for row in scores[["value", "bound", "passed"]].to_dataframe().itertuples():
        mark = "" if row.passed else "   FAILS"
        screen.say(
            f"{row.check:<16} {row.variable:<24} {row.value:8.4f}   {row.sense} "
            f"{row.bound:.4f}{mark}"
        )
    print(f"verdict: {scores.attrs['verdict']}")
    screen.say(f"report: {out / 'index.html'}")


main = cli.door(check)
if __name__ == "__main__":
    main()
