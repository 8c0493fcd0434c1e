"""Scores of forecasts, collected one initial time and lead at a time; `tables` reads them out.

Memory holds sums per initial time, never members (but for one day, for the change over 24 h).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.metrics import derived
from sciladm.metrics.bootstrap import Resamples, resample
from sciladm.metrics.spectrum import Spectrum
from sciladm.metrics.statistics import (
    GROUPS,
    SPREAD_BINS,
    STATISTICS,
    Cells,
    Deviations,
    statistics,
)

Floats = NDArray[np.floating]
SPECTRUM_MEMBERS = 4
"""Members whose spectra are taken; the mean over many cases needs no more."""


@dataclass
class Record:
    """What is kept of one forecast: per initial time arrays with the lead first, and ranks and
    spread bins summed over initial times."""

    members: int
    ranks: NDArray[np.float64]
    spread_bins: NDArray[np.float64]
    sums: dict[np.datetime64, NDArray[np.float32]] = field(default_factory=dict)
    weights: dict[np.datetime64, NDArray[np.float32]] = field(default_factory=dict)
    largest: dict[np.datetime64, NDArray[np.float64]] = field(default_factory=dict)
    power: dict[np.datetime64, NDArray[np.float32]] = field(default_factory=dict)

    def times(self) -> NDArray[np.datetime64]:
        """Initial times seen, sorted."""
        return np.array(sorted(self.sums), dtype="datetime64[ns]")


class Scorer:
    """Collects statistics of any number of named forecasts on one grid.

    channels: names of the C channels. regions: masks (*space); the joint scores (energy,
    variogram, largest member) are taken on the first. area (*space). normaliser (C,):
    climatological standard deviation. leads_hours: every lead that `add` will see. headline: the
    channels that `all` means. winds: name of a speed → its two channels (see
    `derived.find_winds`). spectrum: see `spectrum_for`; none, no spectra.
    """

    def __init__(
        self,
        channels: Sequence[str],
        regions: Mapping[str, NDArray[np.bool_]],
        area: Floats,
        normaliser: Floats,
        leads_hours: Sequence[float],
        headline: Sequence[str],
        winds: Mapping[str, tuple[str, str]] | None = None,
        spectrum: Spectrum | None = None,
    ) -> None:
        unknown = [name for name in headline if name not in channels]
        if unknown or not headline:
            raise UserError(
                f"The headline variables must be among the scored channels; got "
                f"{unknown or 'none'}, there are {', '.join(channels)}. Mend "
                "evaluation.headline."
            )
        self.cells = Cells(
            list(channels), regions, area, np.asarray(normaliser), headline, winds or {}
        )
        self.leads = [float(hours) for hours in leads_hours]
        self.spectrum = spectrum
        self.forecasts: dict[str, Record] = {}
        self._recent: dict[str, tuple[np.datetime64, dict[float, Deviations]]] = {}

    def add(
        self,
        forecast: str,
        init_time: np.datetime64,
        lead_index: int,
        members: Floats,
        truth: Floats,
        valid: NDArray[np.bool_] | None = None,
        centre: Floats | None = None,
    ) -> None:
        """Take in members (M, C, *space) against truth (C, *space), physical units, once per
        (forecast, init_time, lead). Leads of one initial time in rising order: the change over
        24 h needs the day before.

        valid: cells that count (broadcast to truth; those where truth is NaN never do).
        centre: climatological mean (C, *space), taken off before the spectra.
        """
        init = init_time.astype("datetime64[ns]")
        seen = ~np.isnan(truth)
        valid = seen if valid is None else seen & valid
        now = self.cells.deviations(members, truth, valid)
        self._check(forecast, init, lead_index, now)
        record = self._record(forecast, len(members))
        if init not in record.sums:
            self._open(record, init)
        elif record.weights[init][lead_index].any():
            raise ValueError(f"{forecast} at {init} + {self.leads[lead_index]} h was added twice")
        rng = np.random.default_rng([crc32(forecast.encode()), init.astype(int), lead_index])
        case = statistics(self.cells, now, self._day_before(forecast, init, lead_index, now), rng)
        record.sums[init][lead_index] = case.sums
        record.weights[init][lead_index] = case.weights
        record.largest[init][lead_index] = case.largest
        record.ranks[lead_index] += case.ranks
        record.spread_bins[lead_index] += case.spread_bins
        if self.spectrum is not None:
            fields = np.concatenate([members[:SPECTRUM_MEMBERS], truth[None]])
            fields = fields if centre is None else fields - centre
            power = self._power(self.spectrum, np.where(valid, fields, np.float32(0)), valid)
            record.power[init][lead_index] = [power[:-1].mean(axis=0), power[-1]]

    def _power(self, spectrum: Spectrum, fields: Floats, valid: NDArray[np.bool_]) -> Floats:
        scale = self.cells.scale[: len(valid)].reshape(-1, *[1] * (valid.ndim - 1))
        power = spectrum(fields / scale)
        power[:, ~valid.reshape(len(valid), -1).all(axis=1)] = np.nan
        return power

    def _check(self, name: str, init: np.datetime64, lead: int, now: Deviations) -> None:
        bad = np.atleast_1d(~np.isfinite(now.members).all(axis=(0, 2)))
        if bad.any():
            where = [v for v, b in zip(self.cells.variables, bad, strict=True) if b]
            raise UserError(
                f"Forecast {name!r}, init_time {init}, lead {self.leads[lead]:g} h: "
                f"{', '.join(where)} has NaN or infinity in cells where the truth is valid, so "
                "it cannot be scored. Write those cells, or mark them as not valid."
            )

    def _record(self, forecast: str, members: int) -> Record:
        shape = (len(self.leads), len(self.cells.variables), len(self.cells.atoms))
        if forecast not in self.forecasts:
            self.forecasts[forecast] = Record(
                members, np.zeros((*shape, members + 1)), np.zeros((*shape, SPREAD_BINS, 3))
            )
        record = self.forecasts[forecast]
        if record.members != members:
            raise UserError(
                f"Forecast {forecast!r} has {members} members here and {record.members} before; "
                "score equal numbers, or give the two parts different names."
            )
        return record

    def _open(self, record: Record, init: np.datetime64) -> None:
        leads, shape = len(self.leads), (len(self.cells.variables) + 1, len(self.cells.regions))
        record.sums[init] = np.zeros((leads, len(STATISTICS), *shape), np.float32)
        record.weights[init] = np.zeros((leads, len(GROUPS), *shape), np.float32)
        record.largest[init] = np.full(leads, np.nan)
        if self.spectrum is not None:
            scales = len(self.spectrum.wavenumbers)
            record.power[init] = np.full(
                (leads, 2, len(self.cells.channels), scales), np.nan, np.float32
            )

    def _day_before(
        self, forecast: str, init: np.datetime64, lead: int, now: Deviations
    ) -> Deviations | None:
        held_init, held = self._recent.get(forecast, (init, {}))
        hours = self.leads[lead]
        held = held if held_init == init else {}
        held = {h: d for h, d in held.items() if hours - 24.0 <= h < hours}
        self._recent[forecast] = (init, held | {hours: now})
        return held.get(hours - 24.0)

    def resamples(self, times: NDArray[np.datetime64], number: int) -> Resamples:
        """The bootstrap's weights on these initial times; the same for every forecast."""
        return resample(times, np.timedelta64(round(max(self.leads) * 3600), "s"), number)

    def values(
        self, forecast: str, lead: int, times: NDArray[np.datetime64], cases: Floats
    ) -> derived.Values:
        """Metrics (resample, V+1, R) over the given initial times, each counted cases times."""
        record = self.forecasts[forecast]
        mean = derived.means(
            np.stack([record.sums[t][lead] for t in times]),
            np.stack([record.weights[t][lead] for t in times]),
            np.asarray(cases, np.float64),
        )
        return derived.metrics(mean, record.members, self.cells.headline)

    def seen(self, forecast: str, lead: int) -> NDArray[np.datetime64]:
        """Initial times of a forecast that have this lead, sorted."""
        record = self.forecasts[forecast]
        has = [t for t in record.times() if record.weights[t][lead].any()]
        return np.array(has, dtype="datetime64[ns]")

    def common(self, names: Sequence[str], lead: int) -> NDArray[np.datetime64]:
        """Initial times that all these forecasts have at this lead, sorted."""
        times = self.seen(names[0], lead)
        for name in names[1:]:
            times = np.intersect1d(times, self.seen(name, lead))
        return times

    def units(self, metric: str) -> NDArray[np.float64]:
        """Factors (V+1, 1) from units of the normaliser to physical ones; 1 for `all`."""
        scale = np.concatenate([self.cells.scale, [1.0]]).astype(np.float64)
        return np.ones_like(scale)[:, None] if metric in derived.WITHOUT_UNITS else scale[:, None]

    def regional(self, per_atom: Floats) -> NDArray[np.float64]:
        """Sums over regions (V, R, …) of sums over the atoms of which they consist (V, A, …)."""
        return np.asarray(np.einsum("va...,ar->vr...", per_atom, self.cells.atoms * 1.0))
