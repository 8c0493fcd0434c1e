"""The tables that a report is made of, and how it looks things up in them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from sciladm.metrics.tables import ORACLES
from sciladm.report.style import BASELINES

FILL = -1.0
"""Stands for the empty lead of fills, which do not compare equal to themselves."""
SIDE = ("autoencoder", *ORACLES)
"""Shown beside the forecasts, never competing with them."""


def records(table: pd.DataFrame) -> Iterable[Any]:
    """Rows with their columns as attributes."""
    return table.itertuples(index=False)


@dataclass(frozen=True)
class Results:
    """scores, ranks, spectra: the columns of their CSV files; comparisons: of a forecast with a
    reference (paired). ``units`` of variables, ``headline`` variables in order."""

    scores: pd.DataFrame
    ranks: pd.DataFrame
    spectra: pd.DataFrame
    comparisons: pd.DataFrame
    headline: tuple[str, ...]
    units: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        tables: Sequence[pd.DataFrame],
        headline: Sequence[str] | None,
        units: Mapping[str, str] | None,
    ) -> "Results":
        """From scores, ranks, spectra, comparisons; without ``headline``, the first variables."""
        scores, ranks, spectra, comparisons = (
            table.assign(lead_hours=table["lead_hours"].astype(float).fillna(FILL))
            if "lead_hours" in table
            else table
            for table in tables
        )
        names = [str(name) for name in scores["variable"].unique() if name != "all"]
        return cls(scores, ranks, spectra, comparisons, tuple(headline or names[:9]), units or {})

    @property
    def forecasts(self) -> list[str]:
        """All names: models first, then baselines, then what stands beside."""
        names = [str(name) for name in self.scores["forecast"].unique()]
        order = [*self.models, *BASELINES, *SIDE]
        return sorted(names, key=order.index)

    @property
    def models(self) -> list[str]:
        """The forecasts that are judged: whatever is no baseline and no oracle."""
        names = [str(name) for name in self.scores["forecast"].unique()]
        return [name for name in names if name not in (*BASELINES, *SIDE)]

    @property
    def variables(self) -> list[str]:
        """`all` first, then headline variables, then the rest."""
        names = [str(name) for name in self.scores["variable"].unique()]
        first = [name for name in ("all", *self.headline) if name in names]
        return [*first, *(name for name in names if name not in first)]

    @property
    def region(self) -> str:
        """The region that stands for the whole: the first."""
        return str(self.scores["region"].iloc[0]) if len(self.scores) else "global"

    @property
    def leads(self) -> list[float]:
        """Lead times in hours, ascending."""
        return sorted(float(lead) for lead in self.scores["lead_hours"].unique())

    def select(self, metric: str, **where: str) -> pd.DataFrame:
        """Rows of scores for a metric; region and season default to the whole."""
        where = {"region": self.region, "season": "all"} | where
        rows = self.scores[self.scores["metric"] == metric]
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows.sort_values("lead_hours", kind="stable")

    def by_lead(self, metric: str, **where: str) -> dict[float, float]:
        """Value per lead."""
        rows = self.select(metric, **where)
        return dict(
            zip(rows["lead_hours"].astype(float), rows["value"].astype(float), strict=True)
        )

    def skill(self, forecast: str, **where: str) -> dict[float, float]:
        """1 − fair CRPS / climatology's, per lead."""
        own = self.by_lead("fair_crps", forecast=forecast, **where)
        reference = self.by_lead("fair_crps", forecast="climatology", **where)
        return {t: 1 - own[t] / reference[t] for t in own if reference.get(t, 0) > 0}
