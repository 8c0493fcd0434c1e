"""Forecast stores against the truth, beside every baseline, on the same initial times."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sciladm.baselines.series import Baseline
from sciladm.calendar import later
from sciladm.conventions import UserError, format_duration
from sciladm.data.fields import Fields
from sciladm.data.labels import aligned
from sciladm.data.times import Times
from sciladm.metrics.bootstrap import FEWEST_BLOCKS
from sciladm.metrics.derived import find_winds
from sciladm.metrics.regions import regions
from sciladm.metrics.scorer import Scorer
from sciladm.metrics.spectrum import spectrum_for
from sciladm.metrics.tables import ORACLES, paired_table, rank_table, score_table, spectrum_table
from sciladm.model import Model
from sciladm.tasks.readings import note_reading
from sciladm.tasks.rivals import Ground, fit_rivals, through_autoencoder, trained
from sciladm.tasks.stores import Forecasts, find_run, open_forecasts, recipe_of
from sciladm.tasks.truth import Case, open_case
from sciladm.tasks.voice import Silent, Voice

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Example:
    """Fields of one variable at one lead (…, *space), anomalies from ``centre`` still to take;
    of a fill what was ``seen``, NaN elsewhere."""

    variable: str
    units: str
    init: np.datetime64
    lead: np.timedelta64
    truth: Array
    members: Array
    centre: Array
    seen: Array | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """The four tables of a report, what it shows, and where it all comes from."""

    scores: pd.DataFrame
    ranks: pd.DataFrame
    spectra: pd.DataFrame
    comparisons: pd.DataFrame
    examples: list[Example]
    fields: Fields
    headline: list[str]
    units: dict[str, str]
    provenance: dict[str, Any]
    notes: list[str]


def score(
    stores: Sequence[Path],
    truth: Path | None = None,
    run: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    voice: Voice | None = None,
) -> Scored:
    """Score ``stores`` on the initial times and leads that they have in common.

    ``truth``: fields to score against instead of the run's own data; ``run``: the folder of the
    run where it is not found by its name; ``changes`` of the recipe's evaluation.
    """
    voice, notes = voice or Silent(), []
    forecasts = open_forecasts(stores)
    run = find_run(forecasts, run)
    if run is None:
        notes.append("The run behind the forecasts was not found (give --run DIR): its scales are "
                     "fitted anew, and the rows that need its networks are left out.")  # fmt: skip
    case = open_case(forecasts, run, recipe_of(forecasts, run, changes or {}), truth, voice, notes)
    provenance = _provenance(case, forecasts, run, truth, notes)
    model = trained(run, torch.device(device))
    own = case.recipe.evaluation
    members = case.members if case.members > 1 else own.members
    ground = Ground(case.data, case.state, case.normaliser.std, case.leads, members, own.seed)
    rivals = fit_rivals(own.baselines, ground, model, voice, notes)
    scorer, examples = _run_through(case, forecasts, rivals, model, voice, notes)
    return _read_out(case, forecasts, scorer, examples, provenance, voice, notes)


def _note_reading(case: Case, forecasts: Sequence[Forecasts], run: Path, notes: list[str]) -> int:
    """`note_reading` of forecasts."""
    times = np.concatenate([case.inits, later(case.inits[:, None], case.leads).ravel()])
    line = {
        "stores": {one.name: one.fingerprint() for one in forecasts},
        "first_init": str(case.inits[0].astype("M8[s]")),
        "last_init": str(case.inits[-1].astype("M8[s]")),
        "inits": len(case.inits),
        "last_lead": format_duration(case.leads[-1]),
        "members": case.members,
    }
    return note_reading("evaluate", case.data, times, line, run, notes)


def _scorer(case: Case, notes: list[str]) -> Scorer:
    fields = case.data.fields
    land, ds = None, case.data.frames.ds
    if "land_sea_mask" in ds:
        flat = ds["land_sea_mask"].isel({d: 0 for d in ds["land_sea_mask"].dims
                                         if d not in fields.grid.names})  # fmt: skip
        still = ds.drop_dims("time", errors="ignore")
        try:
            land = aligned(still, flat, fields.grid, False)[0, 0]
        except UserError as error:
            notes.append(f"Land and sea are not scored apart: {error}.")
    return Scorer(
        fields.names,
        regions(fields.grid, land),
        fields.grid.area,
        case.normaliser.std,
        [float(lead / np.timedelta64(1, "h")) for lead in case.leads],
        case.recipe.evaluation.headline or fields.names,
        find_winds(fields.names),
        spectrum_for(fields.grid),
    )


def _run_through(
    case: Case,
    forecasts: Sequence[Forecasts],
    rivals: Sequence[Baseline],
    model: Model | None,
    voice: Voice,
    notes: list[str],
) -> tuple[Scorer, list[Example]]:
    """One initial time after another: all its forecasts, lead by lead."""
    scorer, seed = _scorer(case, notes), case.recipe.evaluation.seed
    makers: dict[str, Callable[[Hour], Iterator[Array]]] = {
        one.name: partial(_stored, one) for one in forecasts
    }
    makers |= {rival.name: partial(_made, rival) for rival in rivals}
    if model is not None:
        makers["autoencoder"] = lambda hour: through_autoencoder(
            model, hour.truth, hour.times, case.members, seed
        )
    required = {one.name for one in forecasts}
    examples: list[Example] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, voice.progress("scores") as report:
        for number, init in enumerate(case.inits):
            hour = Hour(case, scorer, init)
            # The first one by one: it decides the order of the tables.
            each = pool.map if number else map
            failed = list(each(hour.attempt, list(makers), list(makers.values())))
            for name, error in zip(list(makers), failed, strict=True):
                if error and name in required:
                    raise error
                if error:
                    makers.pop(name)
                    scorer.forecasts.pop(name, None)
                    notes.append(f"{name} is left out: {error}")
            if number == 0:
                examples = _examples(case, forecasts[0], hour)
            report((number + 1) / len(case.inits))
    return scorer, examples


class Hour:
    """One initial time: truth and climatology (lead, channel, *space) of all its leads."""

    def __init__(self, case: Case, scorer: Scorer, init: np.datetime64) -> None:
        self.case, self.scorer, self.init = case, scorer, init
        self.times = later(init, case.leads)
        self.truth = case.truth.read(case.find(self.times))
        self.centre = case.normaliser.centre(self.times)

    def attempt(self, name: str, make: Callable[["Hour"], Iterator[Array]]) -> UserError | None:
        """Score members (member, channel, *space) for one lead after another; → what failed."""
        try:
            for lead, members in enumerate(make(self)):
                self.scorer.add(
                    name, self.init, lead, members, self.truth[lead],
                    self.case.normaliser.valid, self.centre[lead],
                )  # fmt: skip
        except UserError as error:
            return error
        return None


def _stored(forecasts: Forecasts, hour: Hour) -> Iterator[Array]:
    case = hour.case
    return forecasts.read(hour.init, case.leads, case.members, case.data.fields)


def _made(rival: Baseline, hour: Hour) -> Iterator[Array]:
    return iter(np.moveaxis(rival.forecast(hour.init, hour.case.leads), 1, 0))


def _examples(case: Case, forecasts: Forecasts, one: Hour, number: int = 3) -> list[Example]:
    """The first headline variables at the first lead and the last."""
    fields = case.data.fields
    ends = np.unique([0, len(case.leads) - 1])
    found = []
    for lead, drawn in zip(
        ends, forecasts.read(one.init, case.leads[ends], case.members, fields), strict=True
    ):
        for name in (case.recipe.evaluation.headline or fields.names)[:number]:
            channel = fields.names.index(name)
            found.append(Example(
                name, fields.channels[channel].units, one.init, case.leads[lead],
                one.truth[lead, channel], drawn[:, channel], one.centre[lead, channel],
            ))  # fmt: skip
    return found


def _read_out(
    case: Case,
    forecasts: Sequence[Forecasts],
    scorer: Scorer,
    examples: list[Example],
    provenance: dict[str, Any],
    voice: Voice,
    notes: list[str],
) -> Scored:
    """Tables from what the scorer has collected."""
    fields = case.data.fields
    note_scarce(scorer, case.inits, "initial times", notes)
    judged = [one.name for one in forecasts if one.name not in ORACLES]
    others = [name for name in scorer.forecasts if name not in (*ORACLES, "autoencoder")]
    with voice.progress("tables") as report:
        scores = score_table(scorer)
        report(0.5)
        pairs = [(a, b) for a in judged for b in others if a != b]
        compared = [paired_table(scorer, a, b) for a, b in pairs]
        report(1.0)
    return Scored(
        scores,
        rank_table(scorer),
        spectrum_table(scorer),
        pd.concat(compared, ignore_index=True) if compared else pd.DataFrame(),
        examples,
        fields,
        list(case.recipe.evaluation.headline or fields.names),
        {channel.name: channel.units for channel in fields.channels},
        provenance,
        notes,
    )


def note_scarce(scorer: Scorer, times: Times, called: str, notes: list[str]) -> None:
    """A note where too few independent stretches of time were scored for intervals."""
    blocks = scorer.resamples(times, 1).blocks
    if blocks < FEWEST_BLOCKS:
        notes.append(
            f"The {called} span {blocks} independent stretches of time, fewer than "
            f"{FEWEST_BLOCKS}: too few for intervals, so none are given and nothing is judged."
        )


def _provenance(
    case: Case,
    forecasts: Sequence[Forecasts],
    run: Path | None,
    truth: Path | None,
    notes: list[str],
) -> dict[str, Any]:
    """Where all this comes from; nothing of it depends on the machine."""
    data = case.data
    simulated = data.kind == "simulated" and "simulated" not in data.source
    told: dict[str, Any] = {
        "source": data.source + (" (simulated)" if simulated else ""),
        "data": data.title,
        "data_fingerprint": data.fingerprint,
        "truth": truth.name if truth else "the data of the run",
        "initial_times": f"{len(case.inits)}, {case.inits[0].astype('M8[m]')} … "
                         f"{case.inits[-1].astype('M8[m]')}",
        "evaluation_seed": case.recipe.evaluation.seed,
        "sciladm_version": version("sciladm"),
    }  # fmt: skip
    if run is not None:
        reads = _note_reading(case, forecasts, run, notes)
        told |= {"run": run.resolve().name, "test_reads": reads}
    for one in forecasts:
        facts = {str(k): v for k, v in one.ds.attrs.items() if k not in ("recipe", "forecast")}
        told[one.name] = {"store": one.path.name, "fingerprint": one.fingerprint(), **facts}
    return told | {"recipe": case.recipe.text()}
