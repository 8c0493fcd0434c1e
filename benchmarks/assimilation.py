"""Stations cycled through the simulated atmosphere: the analyses, and forecasts from them.

    python benchmarks/assimilation.py runs/era5-simulated --days 30 --stations 200

Each day 200 stations at random places report what the recipe's card calls surface variables, and
those of 500 hPa, with an error of a tenth of a climatological standard deviation. An ensemble that
begins as the climate (training states of the season) takes them up day by day by `assimilate`; the
rival, optimal interpolation from the climate's mean, has the covariance of training anomalies of
all variables (400 orthogonal functions and what they leave) and knows each day's
stations alone. Over the last two thirds of the days: root mean square error of the means, in
climatological standard deviations, spread–skill, fair CRPS; and the same of forecasts from both.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr

import sciladm
from sciladm.metrics.ensemble import fair_crps
from sciladm.model import Model
from sciladm.tasks.run import open_run
from sciladm.tasks.voice import Silent

ERROR = 0.1
LEADS = 3
"""Days that forecasts from the last analyses are scored."""


def network(model: Model, times: np.ndarray, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """The same stations every day: places, variables and errors, without values."""
    fields = model.fields
    asked = [n for n, c in enumerate(fields.channels) if c.level in (None, 500)]
    latitude = np.rad2deg(np.arcsin(rng.uniform(-0.99, 0.99, count)))
    longitude = rng.uniform(0, 360, count)
    parts = [
        pd.DataFrame({
            "time": time, "latitude": latitude, "longitude": longitude, "value": 0.0,
            "variable": fields.channels[n].variable, "level": fields.channels[n].level or np.nan,
            "error": ERROR * model.normaliser.std[n],
        })
        for time in times for n in asked
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def observed(model: Model, table: pd.DataFrame, truth: dict, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    """The table with what stations report of the truth, and their rows by day."""
    fields, valid = model.fields, model.normaliser.valid
    out = []
    for time, part in table.groupby("time"):
        at = np.array([time], "M8[ns]")
        (rows,) = sciladm.Points(part).rows(fields, valid, at, model.step)
        told = rows.weights @ truth[at[0]].ravel()
        out.append(part.assign(value=told + rows.std * rng.standard_normal(len(part))))
    return pd.concat(out)


def said(members: np.ndarray, truth: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Squared error of the mean, variance, fair CRPS, (channel,), weighted by area; anomalies."""
    spread = members.var(0, ddof=1) * (1 + 1 / len(members))
    parts = ((members.mean(0) - truth) ** 2, spread, fair_crps(members, truth))
    return np.array([(part * area).sum((-2, -1)) for part in parts])


def line(name: str, sums: np.ndarray) -> None:
    """``sums`` (case, 3, channel) in the mean over cases."""
    error, spread, crps = sums.mean(0)
    whole, each = np.sqrt(spread.sum() / error.sum()), np.sqrt(spread / error)
    print(
        f"{name:32} rmse {np.sqrt(error).mean():.4f}  spread–skill {whole:.3f} "
        f"({each.min():.3f}–{each.max():.3f} by variable)  fair CRPS {crps.mean():.4f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--stations", type=int, default=200)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--method", default="guided")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model, data = open_run(asked.run, torch.device("cpu"), {}, None, Silent())
    trained, frames = sciladm.load(asked.run), data.frames
    rng = np.random.default_rng(asked.seed)
    area, known = model.fields.grid.area, model.recipe.window.past
    a_day = int(model.step / np.median(np.diff(frames.times[:9])))
    test, train = data.indices("test"), data.indices("train")
    first = test[len(test) // 4 * asked.seed % (len(test) // 2)]
    numbers = first + a_day * np.arange(known, known + asked.days + LEADS)
    times = frames.times[numbers]
    states = frames.read(numbers)
    truth = dict(zip(times, states, strict=True))
    anomalies = lambda values, at: model.normaliser.normalise(values, at)
    true = anomalies(states, times)

    day = lambda t: (t.astype("M8[D]") - t.astype("M8[Y]").astype("M8[D]")).astype(int)
    near = train[(np.abs(day(frames.times[train]) - day(times[:1])) < 15)]
    near = near[near + a_day * known < train[-1]]
    before = times[0] - model.step * np.arange(known, 0, -1)
    pasts = []
    for start in rng.choice(near, asked.members, replace=False):
        climate = anomalies(frames.read(start + a_day * np.arange(known)),
                            frames.times[start + a_day * np.arange(known)])  # fmt: skip
        values = model.normaliser.denormalise(climate, before)
        pasts.append(model.fields.to_dataset(values, ("time",), {"time": before}))
    background = xr.concat(pasts, "member")

    table = network(model, times[: asked.days], asked.stations, rng)
    table = observed(model, table, truth, rng)
    analysed = trained.assimilate(
        background, sciladm.Points(table), members=asked.members, method=asked.method, workers=2
    )
    array = lambda ds: np.stack(
        [model.fields.to_array(ds.isel(member=m)) for m in range(asked.members)]
    )
    own = array(analysed)
    rows = [said(anomalies(own[:, n], times[[n]]), true[n], area) for n in range(asked.days)]
    settled = slice(asked.days // 3, None)
    for n in (0, 1, 2, 4, 9):
        if n < asked.days:
            line(f"{asked.method}, day {n + 1}", np.array(rows[n : n + 1]))
    line(f"{asked.method}, days {asked.days // 3 + 1}–{asked.days}", np.array(rows[settled]))

    # The rival: each day from the climate's mean.
    some = train[:: max(1, len(train) // 3000)]
    seen = anomalies(frames.read(some), frames.times[some])
    weigh = np.sqrt(area / area.mean())
    flat = lambda x: (x * weigh).reshape(len(x), -1).astype(np.float64)
    fits = Functions.fit(flat(seen), 400)
    drawn = []
    for n in range(asked.days):
        part = table[table.time == times[n]]
        (told,) = sciladm.Points(part).rows(
            model.fields, model.normaliser.valid, times[[n]], model.step
        )
        centre = model.normaliser.centre(times[[n]])[0].astype(np.float64)
        scale = model.normaliser.std.reshape(-1, 1, 1)
        told = told.anomalies(centre, scale)
        members = fits.members(told, (1 / np.broadcast_to(weigh, centre.shape)).ravel(),
                               asked.members, rng)  # fmt: skip
        drawn.append(members.reshape(asked.members, *centre.shape))
    rows = [said(drawn[n], true[n], area) for n in range(asked.days)]
    line(f"optimal interpolation, days {asked.days // 3 + 1}–{asked.days}",
         np.array(rows[settled]))  # fmt: skip

    last = times[asked.days - known : asked.days]
    back = lambda x: model.fields.to_dataset(x, ("member", "time"), {"time": last})
    optimal = np.stack(drawn[asked.days - known : asked.days], 1).astype(np.float32)
    starts = {
        asked.method: back(own[:, asked.days - known : asked.days]),
        "optimal interpolation": back(
            np.stack([model.normaliser.denormalise(m, last) for m in optimal])
        ),
    }
    for name, ds in starts.items():
        ahead = trained.assimilate(ds, [], times[-1], asked.members, evaluations=12)
        free = array(ahead)
        for n in range(LEADS):
            at = asked.days + n
            row = said(anomalies(free[:, n], times[[at]]), true[at], area)
            line(f"forecast from {name}, day {n + 1}", row[None])


class Functions:
    """Optimal interpolation with leading orthogonal functions and what they leave."""

    def __init__(self, functions: np.ndarray, rest: np.ndarray) -> None:
        self.functions, self.rest = functions, rest

    @classmethod
    def fit(cls, rows: np.ndarray, count: int) -> "Functions":
        """rows (sample, number)."""
        values, vectors = np.linalg.eigh(rows @ rows.T / len(rows))
        kept = slice(len(values) - count, None)
        functions = rows.T @ vectors[:, kept] / np.sqrt(len(rows))
        total = (rows**2).mean(0)
        return cls(functions, np.maximum(total - (functions**2).sum(1), 0.0))

    def members(self, told, unweigh: np.ndarray, count: int, rng) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Draws (member, number) given rows, whose weights are of numbers not weighed."""
        a = told.weights.multiply(unweigh[None]).tocsr()
        noise = told.std**2 + np.asarray(a.multiply(a) @ self.rest)
        seen = a @ self.functions
        precision = np.eye(seen.shape[1]) + seen.T @ (seen / noise[:, None])
        root = np.linalg.cholesky(np.linalg.inv(precision))
        middle = root @ (root.T @ (seen.T @ (told.values / noise)))
        amplitude = middle + rng.standard_normal((count, len(middle))) @ root.T
        rest = np.sqrt(self.rest) * rng.standard_normal((count, len(self.rest)))
        return (amplitude @ self.functions.T + rest) * unweigh


if __name__ == "__main__":
    main()
