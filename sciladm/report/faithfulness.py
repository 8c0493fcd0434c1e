"""The report of a check: verdict, table of scores, ratios of spectra, on one page."""

from html import escape
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from sciladm.data.durable import write_durably, writing
from sciladm.report.curves import SIDES, svg
from sciladm.report.page import MARKER, check_folder
from sciladm.report.style import CSS, INK, MODELS, number, words
from sciladm.report.tables import html_table

COLUMNS = ["check", "variable", "value", "sense", "bound", "passed"]


def write_check(out: Path, scores: xr.Dataset) -> None:
    """Write ``out/index.html`` and ``out/scores.csv`` from what `check_augmentation` returns;
    UserError if ``out`` holds anything that is not a report of ours."""
    check_folder(out)
    table = scores[["value", "bound", "passed"]].to_dataframe()[COLUMNS]
    text = table.to_csv(index=False, float_format="%.7g", lineterminator="\n")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_durably(out / MARKER, b"")
        write_durably(out / "scores.csv", text.encode())
        write_durably(out / "index.html", page(scores).encode())


def page(scores: xr.Dataset) -> str:
    """The whole page; same scores, same bytes."""
    title = "Check of synthetic fields"
    verdict = scores.attrs["verdict"]
    failed = scores["passed"].values.size - int(scores["passed"].sum())
    told = "All checks are passed." if verdict == "pass" else f"{failed} of the checks fail."
    counts = " · ".join(
        f"{scores.attrs[f'{name}_samples']} {words(name)}"
        for name in ("synthetic", "train", "test")
    )
    tone = "good" if verdict == "pass" else "bad"
    body = (
        f'<h1>{title}</h1><p class="lead">{escape(counts)} samples</p>'
        f'<ul class="verdicts"><li class="{tone}">{told}</li></ul>'
        f"<h2>Scores</h2>{score_table(scores)}"
        "<h2>Spectra</h2><p>Power of the samples over that of the training fields; the band is "
        f"1 ± 0.05.</p><figure>{spectra(scores)}</figure>"
        "<h2>Usefulness</h2><p>Share of the variance of the middle of held-out fields told from "
        "what surrounds it, by what a ridge regression was trained on. No part of the verdict.</p>"
        f"{useful_table(scores)}"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{CSS}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def score_table(scores: xr.Dataset) -> str:
    """One row for each score."""
    rows = []
    for n in range(scores.sizes["score"]):
        row = scores.isel(score=n)
        tone, word = ("good", "passed") if row["passed"] else ("bad", "fails")
        rows.append((words(str(row["check"].item())), [
            f'<td class="text">{escape(words(str(row["variable"].item())))}</td>',
            f"<td>{number(float(row['value']))}</td>",
            f"<td>{row['sense'].item()} {number(float(row['bound']))}</td>",
            f'<td class="{tone}">{word}</td>',
        ]))  # fmt: skip
    return html_table(["check", "variable", "value", "bound", ""], rows)


def useful_table(scores: xr.Dataset) -> str:
    """One row for each training set of the regression."""
    pairs = zip(scores["trained_on"].values, scores["usefulness"].values, strict=True)
    return html_table(
        ["trained on", "explained"],
        [(words(str(name)), [f"<td>{number(float(value))}</td>"]) for name, value in pairs],
    )


def spectra(scores: xr.Dataset) -> str:
    """Ratios by wavenumber, a line for each channel, as SVG."""

    def draw() -> Figure:
        figure = Figure(figsize=(10.6, 3.4))
        ax = figure.subplots()
        ax.axhspan(0.95, 1.05, color=SIDES, lw=0)
        ax.axhline(1, color=INK, lw=0.8)
        for number_, name in enumerate(scores["channel"].values):
            ratio = scores["spectrum_ratio"].sel(channel=name)
            colour = MODELS[number_ % len(MODELS)]
            ax.plot(scores["wavenumber"], ratio, color=colour, label=words(str(name)))
        ax.set_xscale("log")
        ax.set_xlabel("wavenumber")
        ax.set_ylabel("power, synthetic / train")
        ax.legend()
        return figure

    return svg(draw, "spectra of a check")
