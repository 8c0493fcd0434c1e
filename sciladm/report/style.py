"""How a report looks: colours and words of forecasters, how leads and numbers are written."""

import re
from collections.abc import Sequence

import numpy as np

BAND = (0.9, 1.1)
"""Spread–skill and spectral ratios in here count as calibrated."""
BASELINES = (
    "climatology", "persistence", "damped_persistence", "linear_inverse_model",
    "dressed_regression", "optimal_interpolation", "eof", "linear",
)  # fmt: skip
INK, FAINT, GOOD, BAD = "#1b2733", "#8a94a0", "#1f6fb2", "#c0272d"
# Okabe and Ito's colours, which colour-blind readers tell apart; the models are blue.
LINES: dict[str, tuple[str, str]] = {
    "climatology": ("#7f7f7f", "--"),
    "persistence": ("#d9a400", ":"),
    "damped_persistence": ("#d9a400", "-"),
    "linear_inverse_model": ("#009e73", "-"),
    "dressed_regression": ("#d55e00", "-"),
    "autoencoder": ("#cc79a7", "--"),
    "optimal_interpolation": ("#009e73", "-"),
    "eof": ("#d55e00", "-"),
    "linear": ("#d9a400", "-"),
    "perfect": ("#000000", ":"),
    "exact": ("#000000", ":"),
}
MODELS = ("#0b5394", "#6a3d9a", "#56b4e9", "#a6761d")
CSS = """
:root { --ink: #1b2733; --faint: #66717d; --rule: #d8dde3; --good: #1f6fb2; --bad: #c0272d;
  --sans: "Source Sans 3", "Helvetica Neue", Arial, "Liberation Sans", sans-serif;
  --serif: Charter, "Bitstream Charter", "Source Serif 4", Georgia, "Liberation Serif", serif; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.5 var(--serif); }
main { max-width: 1080px; margin: 0 auto; padding: 40px 32px 80px; }
h1 { font-size: 34px; line-height: 1.15; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 22px; margin: 52px 0 6px; padding-top: 14px; border-top: 2px solid var(--ink); }
h3 { font-size: 17px; margin: 26px 0 4px; }
p { margin: 6px 0 12px; max-width: 92ch; }
p.lead { color: var(--faint); margin-bottom: 22px; }
p.note, figcaption, caption { font: 13.5px/1.45 var(--sans); color: var(--faint); }
.banner { background: var(--bad); color: #fff; font: 600 16px/1.4 var(--sans);
  padding: 12px 32px; text-align: center; }
ul.verdicts { list-style: none; padding: 0; margin: 14px 0; }
ul.verdicts li { padding: 5px 0 5px 16px; border-left: 4px solid var(--rule); margin: 5px 0; }
ul.verdicts li.good { border-color: var(--good); }
ul.verdicts li.bad { border-color: var(--bad); color: var(--bad); }
ul.verdicts span.figures { font: 13.5px var(--sans); color: var(--faint); font-weight: 400; }
table { border-collapse: collapse; font: 13.5px/1.35 var(--sans); margin: 12px 0;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; caption-side: top; padding-bottom: 6px; max-width: 110ch; }
th { text-align: left; font-weight: 600; padding: 4px 12px 4px 0; vertical-align: bottom; }
tbody th { border-bottom: 1px solid #eef1f4; vertical-align: middle; }
thead th { border-bottom: 1px solid var(--ink); text-align: right; padding: 4px 10px;
  white-space: nowrap; }
table thead th:first-child, tbody th { text-align: left; padding-left: 0; white-space: nowrap; }
td { text-align: right; padding: 4px 10px; border-bottom: 1px solid #eef1f4; min-width: 52px; }
table.dense { font-size: 11.5px; }
table.dense td, table.dense thead th + th { padding: 3px 5px; min-width: 38px; }
td.text { text-align: left; }
td.bad { color: var(--bad); font-weight: 600; } td.good { color: var(--good); }
td small { white-space: nowrap; display: block; color: var(--faint); font-size: 11.5px; }
table.card tbody th { border: 0; }
table.card td { border: 2px solid #fff; min-width: 56px; text-align: center; }
table.card thead th { text-align: center; }
table.card thead th:first-child { text-align: left; }
table.dense.card td { min-width: 44px; }
table.dense td small { font-size: 9.5px; white-space: normal; }
figure { margin: 14px 0 26px; } figure svg { width: 100%; height: auto; display: block; }
svg text { font-family: var(--sans) !important; }
details { margin: 4px 0; font: 14px var(--sans); } summary { cursor: pointer; padding: 3px 0; }
pre { font: 12.5px/1.45 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  background: #f5f7f9; padding: 14px 16px; overflow-x: auto; }
.provenance th { font-weight: 400; color: var(--faint); padding-right: 24px; }
.provenance td { text-align: left; }
@media print { main { max-width: none; } details { display: block; } }
"""


def line(forecast: str, models: Sequence[str]) -> tuple[str, str, float]:
    """Colour, dashes and width of a forecast's curve."""
    if forecast in LINES:
        return (*LINES[forecast], 1.4)
    return MODELS[list(models).index(forecast) % len(MODELS)], "-", 2.4


def words(name: str) -> str:
    """A name as people write it; a level stays a bare number, since its unit is not known here."""
    short = {
        "nh": "northern extratropics", "sh": "southern extratropics", "all": "all headline",
        "fair_crps": "fair CRPS", "crps": "CRPS", "rmse": "RMSE", "mae": "MAE",
        "spread_skill": "spread–skill", "eof": "EOF filling", "djf": "Dec–Feb", "mam": "Mar–May",
        "jja": "Jun–Aug", "son": "Sep–Nov", "all_cells": "all cells",
    }  # fmt: skip
    text = short.get(name, name.replace("_", " "))
    return re.sub(r"^(\d+)m ", r"\1 m ", text)


def lead(hours: float) -> str:
    """``day 2`` or ``36 h``; fills have no lead, which is negative here."""
    if hours < 0:
        return "fill"
    return f"day {hours / 24:g}" if hours % 24 == 0 else f"{hours:g} h"


def leads(hours: Sequence[float]) -> str:
    """``days 1–3, 5`` for whole days that follow each other, else every lead."""
    if len(hours) < 2 or any(h % 24 for h in hours):
        return ", ".join(lead(h) for h in hours)
    runs: list[list[int]] = []
    for day in sorted(int(h // 24) for h in hours):
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return "days " + ", ".join(f"{r[0]}–{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs)


def few(hours: Sequence[float], count: int = 5) -> list[float]:
    """At most ``count`` of the leads, evenly, the first and the last among them."""
    if len(hours) <= count:
        return list(hours)
    return [hours[i * (len(hours) - 1) // (count - 1)] for i in range(count)]


def number(value: float) -> str:
    """Three figures, without exponent where people need none; blank for NaN."""
    if not np.isfinite(value):
        return ""
    if value == 0:
        return "0"
    value = float(f"{value:.3g}")  # 0.9996 is 1.00
    if 1e-3 <= abs(value) < 1e6:
        digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
        return f"{value:.{digits}f}".replace("-", "−")
    return f"{value:.2e}".replace("-", "−")


def tenth(value: float) -> str:
    """A percentage to a tenth, without its sign of per cent."""
    return f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")
