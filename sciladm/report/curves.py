"""Curves over lead times and scales, as SVG."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from sciladm.metrics.tables import ORACLES
from sciladm.report.results import Results
from sciladm.report.style import BAND, FAINT, INK, few, lead, line, words

STYLE: Any = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5, "axes.titlesize": 10.5,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 9.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.frameon": False,
    "figure.constrained_layout.use": True, "path.simplify": True,
}  # fmt: skip
SIDES = "#e8edf2"


def svg(draw: Callable[[], Figure], name: str) -> str:
    """What ``draw`` makes as inline SVG: the same bytes for the same input."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        out = io.StringIO()
        draw().savefig(out, format="svg", dpi=144, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    # An id may occur once on a page; only those of clip paths and markers are referred to.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text[text.index("<svg") :])
    return re.sub(r"\n\s*", "\n", text)


def _grid(count: int, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    columns = 2 if count in (2, 4) else 3
    rows = -(-count // columns)
    figure = Figure(figsize=(10.6, height * rows + 0.6))
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for empty in axes[count:]:
        empty.set_visible(False)
    return figure, axes[:count]


def _legend(figure: Figure, axes: Sequence[Axes], order: Sequence[str] = ()) -> None:
    """One legend for all ``axes``, labels in ``order`` first."""
    known: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    labels = [*(label for label in order if label in known), *known]
    labels = list(dict.fromkeys(labels))
    figure.legend(
        [known[label] for label in labels], labels, loc="outside upper left",
        ncols=_legend_columns(labels), handlelength=2.2, columnspacing=1.8,
    )  # fmt: skip


def _legend_columns(labels: Sequence[str]) -> int:
    """One row if the words fit the figure's width, else rows of four or five."""
    return len(labels) if sum(map(len, labels)) + 7 * len(labels) < 130 else 5


def _days(ax: Axes, results: Results) -> np.ndarray:
    """Lead axis in days; returns the leads on it."""
    days = np.array(results.leads) / 24
    ax.set_xlim(0 if days[0] > 0 else days[0] - 1, days[-1] * 1.03)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=days[-1] >= 3))
    return days


def score_curves(results: Results) -> str:
    """Fair CRPS by lead, every forecast, models with their intervals."""
    variables = [v for v in ("all", *results.headline) if v in results.variables]
    units = {"all": "of climatological sd", **results.units}

    def draw() -> Figure:
        figure, axes = _grid(len(variables))
        for ax, variable in zip(axes, variables, strict=True):
            _days(ax, results)
            for forecast in reversed(results.forecasts):
                rows = results.select("fair_crps", forecast=forecast, variable=variable)
                colour, dashes, width = line(forecast, results.models)
                days = rows["lead_hours"] / 24
                ax.plot(
                    days, rows["value"], dashes, color=colour, lw=width, label=words(forecast),
                    marker="o" if len(rows) == 1 else None, ms=4,
                )  # fmt: skip
                if forecast in results.models:
                    ax.fill_between(
                        days, rows["low"], rows["high"], color=colour, alpha=0.18, lw=0
                    )
            ax.set_ylim(bottom=0)
            ax.yaxis.set_major_locator(MaxNLocator(5))
            ax.set_title(words(variable))
            ax.set_ylabel(units.get(variable, ""))
            ax.set_xlabel("lead (days)")
        _legend(figure, axes, [words(forecast) for forecast in results.forecasts])
        return figure

    return svg(draw, "score_curves")


def spread_curves(results: Results, model: str) -> str:
    """Spread–skill ratio by lead, one line per region."""
    variables = [v for v in results.headline if v in results.variables]
    regions = [str(region) for region in results.scores["region"].unique()][:6]
    colours = [INK, "#d55e00", "#0072b2", "#009e73", "#a6761d", "#56b4e9"]

    def draw() -> Figure:
        figure, axes = _grid(len(variables), 2.1)
        for ax, variable in zip(axes, variables, strict=True):
            _days(ax, results)
            ax.axhspan(*BAND, color=SIDES, lw=0, zorder=-1)
            ax.axhline(1, color=FAINT, lw=0.8)
            ends = [0.75, 1.25]
            for region, colour in zip(regions, colours, strict=False):
                rows = results.select(
                    "spread_skill", forecast=model, variable=variable, region=region
                )
                days = rows["lead_hours"] / 24
                ax.plot(days, rows["value"], color=colour, lw=1.5, label=words(region))
                if region == results.region:
                    ax.fill_between(
                        days, rows["low"], rows["high"], color=colour, alpha=0.14, lw=0
                    )
                ends += rows["value"].tolist()
            ax.set_ylim(min(ends) - 0.03, max(ends) + 0.03)
            ax.set_title(words(variable))
            ax.set_xlabel("lead (days)")
        _legend(figure, axes)
        return figure

    return svg(draw, f"spread_curves {model}")


def rank_histograms(results: Results, model: str) -> str:
    """Where the truth falls among the members: first, middle and last lead."""
    table = results.ranks[results.ranks["region"] == results.region]
    variables = [v for v in results.headline if v in set(table["variable"])]
    have = sorted(table.loc[table["forecast"] == model, "lead_hours"].unique())
    chosen = few([float(t) for t in have], 3)

    def draw() -> Figure:
        rows, columns = len(variables), len(chosen)
        figure = Figure(figsize=(10.6, 1.5 * rows + 0.5))
        axes = figure.subplots(rows, columns, squeeze=False, sharex="col")
        for ax_row, variable in zip(axes, variables, strict=True):
            for ax, t in zip(ax_row, chosen, strict=True):
                where = table[(table["variable"] == variable) & (table["lead_hours"] == t)]
                own = where[where["forecast"] == model].sort_values("rank")
                ax.bar(
                    own["rank"], own["frequency"], width=0.86, color="#9db8d2", label=words(model)
                )
                top = max(own["frequency"].tolist(), default=1.0)
                for oracle in ORACLES:
                    null = where[where["forecast"] == oracle].sort_values("rank")
                    if len(null):
                        ax.step(
                            null["rank"], null["frequency"], where="mid", color="black", lw=1.1,
                            label=f"{oracle} members: the null",
                        )  # fmt: skip
                ax.axhline(1, color=FAINT, lw=0.8, ls="--")
                ax.set_ylim(0, max(1.6, 1.1 * top))
                ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                ax.set_title(f"{words(variable)}, {lead(t)}", fontsize=9.5)
        for ax in axes[-1]:
            ax.set_xlabel("members below the truth")
        _legend(figure, axes.ravel().tolist())
        return figure

    return svg(draw, f"rank_histograms {model}") if variables and chosen else ""


def spectra(results: Results, model: str) -> str:
    """Power of the members over the truth's, by scale, one line per lead."""
    table = results.spectra[results.spectra["forecast"] == model]
    variables = [v for v in results.headline if v in set(table["variable"])]
    have = few(sorted(float(t) for t in table["lead_hours"].unique()))
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, max(1, len(have))))

    def draw() -> Figure:
        figure, axes = _grid(len(variables), 2.2)
        for ax, variable in zip(axes, variables, strict=True):
            ax.axhspan(*BAND, color=SIDES, lw=0, zorder=-1)
            ax.axhline(1, color=FAINT, lw=0.8)
            own = table[(table["variable"] == variable) & (table["wavenumber"] > 0)]
            for t, colour in zip(have, shades, strict=True):
                rows = own[own["lead_hours"] == t].sort_values("wavenumber")
                ax.plot(rows["wavenumber"], rows["ratio"], color=colour, lw=1.4, label=lead(t))
            aliased = own.loc[own["aliased"].astype(bool), "wavenumber"]
            if len(aliased):
                ax.axvspan(
                    float(aliased.min()), float(aliased.max()),
                    color="#f3dcc4", alpha=0.7, lw=0, zorder=0,
                    label="not carried by the grid (aliased)",
                )  # fmt: skip
            shown = own.loc[~own["aliased"].astype(bool), "ratio"]
            ends = [0.8, 1.2, *shown.clip(0.2, 3.0)]
            ax.set_ylim(min(ends) - 0.03, max(ends) + 0.03)
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            ax.xaxis.set_minor_formatter("")
            ax.set_xticks(
                [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k <= own["wavenumber"].max()]
            )
            ax.set_title(words(variable))
            ax.set_xlabel("wavenumber")
        _legend(figure, axes)
        return figure

    return svg(draw, f"spectra {model}") if variables else ""
