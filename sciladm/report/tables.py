"""Score cards and tables, as HTML and in the terminal."""

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd
from rich.console import Console
from rich.table import Table

from sciladm.report.results import Results, records
from sciladm.report.style import BAND, lead, number, tenth, words
from sciladm.report.verdicts import compared

METRICS = (
    "fair_crps", "crps", "rmse", "mae", "bias", "spread", "spread_skill", "energy_score",
    "largest_member", "share_of_skill",
)  # fmt: skip
"""The order of metrics; others follow."""


def html_table(
    head: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    caption: str = "",
    kind: str = "",
) -> str:
    """A table; ``rows`` are (row heading, cells), each cell a whole ``<td>``."""
    top = "".join(f"<th>{escape(word)}</th>" for word in head)
    body = "".join(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>" for name, cells in rows)
    kind = f"{kind} dense" if len(head) > 9 else kind
    told = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<table class="{kind}">{told}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    )


def _shade(fraction: float) -> str:
    """Blue for skill, red for its lack, white for none; the text stays readable."""
    end = (31, 111, 178) if fraction > 0 else (192, 39, 45)
    depth = min(1.0, abs(fraction) / 0.8)
    mixed = [round(255 + (part - 255) * depth) for part in end]
    ink = "#fff" if depth > 0.62 else "#1b2733"
    return f"background:rgb({mixed[0]},{mixed[1]},{mixed[2]});color:{ink}"


def _skill_cells(skill: Mapping[float, float], columns: Sequence[float]) -> list[str]:
    return [
        f'<td style="{_shade(skill[t])}">{tenth(100 * skill[t])}</td>'
        if t in skill
        else "<td></td>"
        for t in columns
    ]


def score_card(results: Results, model: str) -> str:
    """Variables × leads, skill against climatology in per cent."""
    rows = []
    for variable in results.variables:
        skill = results.skill(model, variable=variable)
        if skill:
            rows.append((words(variable), _skill_cells(skill, results.leads)))
    if not rows:
        return "<p class=note>No climatology was scored, so there is no skill to show.</p>"
    return html_table(
        [words(model), *map(lead, results.leads)],
        rows,
        f"Skill in per cent: 1 − fair CRPS / fair CRPS of climatology, {words(results.region)}. "
        "100 is perfect knowledge, 0 is climatology, red is worse than climatology.",
        "card",
    )


def where_and_when(results: Results, model: str) -> str:
    """Skill and spread–skill by region and season."""
    rows = []
    for region in results.scores["region"].unique():
        skill = results.skill(model, variable="all", region=str(region))
        if skill:
            rows.append((words(str(region)), _skill_cells(skill, results.leads)))
    for season in results.scores["season"].unique():
        skill = results.skill(model, variable="all", season=str(season))
        if season != "all" and skill:
            rows.append((words(str(season)), _skill_cells(skill, results.leads)))
    if not rows:
        return ""
    return html_table(
        ["where and when", *map(lead, results.leads)],
        rows,
        "Skill in per cent, mean of headline variables, by region and by season.",
        "card",
    )


def verdict_table(results: Results, model: str) -> str:
    """References × leads: relative paired difference with its interval."""
    table = compared(results, model)
    rows = []
    if len(table):
        for reference, some in table.groupby("reference", sort=False):
            by_lead = {float(row.lead_hours): row for row in records(some)}
            rows.append((words(str(reference)), [_verdict(by_lead.get(t)) for t in results.leads]))
    if not rows:
        return ""
    return html_table(
        [f"{words(model)} against", *map(lead, results.leads)],
        rows,
        "Paired difference of fair CRPS in per cent of the reference's, mean of headline "
        "variables, with 95 % intervals from whole initial times resampled in blocks. Negative "
        "is better; blue: better, red: worse, black: not decided.",
    )


def _verdict(row: object) -> str:
    if row is None:
        return "<td></td>"
    difference, low, high, score, verdict = (
        getattr(row, name) for name in ("difference", "low", "high", "score", "verdict")
    )
    tone = {"better": "good", "worse": "bad"}.get(verdict, "")
    limits = f"{tenth(100 * low / score)}, {tenth(100 * high / score)}" if low == low else verdict
    return f'<td class="{tone}">{tenth(100 * difference / score)}<small>{limits}</small></td>'


def everything(results: Results) -> str:
    """Every metric of every forecast by lead, one fold per variable."""
    table = results.scores
    table = table[(table["region"] == results.region) & (table["season"] == "all")]
    known = [metric for metric in METRICS if metric in set(table["metric"])]
    order = [*known, *(m for m in table["metric"].unique() if m not in known)]
    folds = []
    for variable in results.variables:
        own = table[table["variable"] == variable]
        values = {
            (row.metric, row.forecast, float(row.lead_hours)): float(row.value)
            for row in records(own)
        }
        rows = [
            (
                f"{words(metric)} · {words(forecast)}",
                [
                    f"<td>{number(values.get((metric, forecast, t), float('nan')))}</td>"
                    for t in results.leads
                ],
            )
            for metric in order
            for forecast in results.forecasts
            if any((metric, forecast, t) in values for t in results.leads)
        ]
        unit = f" ({results.units[variable]})" if variable in results.units else ""
        inner = html_table(["metric · forecast", *map(lead, results.leads)], rows)
        folds.append(
            f"<details><summary>{escape(words(variable) + unit)}</summary>{inner}</details>"
        )
    return "".join(folds)


def autoencoder_table(results: Results) -> str:
    """What passing through the autoencoder alone costs, per variable."""
    rows = []
    for variable in results.variables:
        own = results.by_lead("fair_crps", forecast="autoencoder", variable=variable)
        reference = results.by_lead("fair_crps", forecast="climatology", variable=variable)
        shared = {t: 100 * own[t] / reference[t] for t in own if reference.get(t, 0) > 0}
        if shared:
            cells = [f"<td>{tenth(shared[t]) if t in shared else ''}</td>" for t in results.leads]
            rows.append((words(variable), cells))
    if not rows:
        return ""
    return html_table(
        ["autoencoder", *map(lead, results.leads)],
        rows,
        "Fair CRPS of the truth encoded, decoded and given its simulated residual, in per cent "
        "of climatology's. It is not a floor of the forecast's score.",
    )


def print_table(
    scores: pd.DataFrame, headline: Sequence[str] | None = None, console: Console | None = None
) -> None:
    """Print fair CRPS of each forecast and the spread–skill ratio, headline variables × leads."""
    empty = pd.DataFrame()
    results = Results.of([scores, empty, empty, empty], headline, None)
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = 300
    title = f"fair CRPS, {words(results.region)} (all headline: in climatological sd)"
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    table.add_column("variable", no_wrap=True)
    table.add_column("forecast", no_wrap=True)
    for t in results.leads:
        table.add_column(lead(t), justify="right", no_wrap=True)
    for variable in [name for name in ("all", *results.headline) if name in results.variables]:
        first = words(variable)
        for forecast in results.forecasts:
            values = results.by_lead("fair_crps", forecast=forecast, variable=variable)
            if values:
                cells = [number(values.get(t, float("nan"))) for t in results.leads]
                style = "bold" if forecast in results.models else ""
                table.add_row(first, words(forecast), *cells, style=style)
                first = ""
        for model in results.models:
            values = results.by_lead("spread_skill", forecast=model, variable=variable)
            cells = [_in_band(values.get(t, float("nan"))) for t in results.leads]
            if values:
                table.add_row("", f"spread–skill, {words(model)}", *cells)
    console.print(table)


def _in_band(value: float) -> str:
    text = number(value)
    return text if not text or BAND[0] <= value <= BAND[1] else f"[red]{text}[/red]"
