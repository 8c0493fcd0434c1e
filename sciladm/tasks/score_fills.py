"""Filled stores against what was hidden from them, beside what fills gaps without a denoiser."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sciladm.conventions import UserError
from sciladm.metrics.derived import find_winds
from sciladm.metrics.regions import regions
from sciladm.metrics.scorer import Scorer
from sciladm.metrics.tables import ORACLES, paired_table, rank_table, score_table
from sciladm.report.style import BASELINES
from sciladm.tasks.fill_rivals import AT_ONCE, Rival, fill_rivals
from sciladm.tasks.fills import Filled, Hidden, hidden_from, run_of
from sciladm.tasks.readings import note_reading
from sciladm.tasks.run import open_run
from sciladm.tasks.score import Example, Scored, note_scarce
from sciladm.tasks.voice import Silent, Voice


def score_fills(
    stores: Sequence[Path],
    truth: Path | None = None,
    run: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    voice: Voice | None = None,
) -> Scored:
    """Score ``stores`` where ``truth`` (absent: the run's own data) has a value that was not
    observed; arguments as `score` has them."""
    voice = voice or Silent()
    notes: list[str] = []
    names = [path.stem for path in stores]
    if len(stores) == 1:
        names = ["model"]
    elif len(set(names)) < len(names):
        raise UserError(f"two stores are called {max(names, key=names.count)}; rename one")
    if taken := set(names) & {*BASELINES, *ORACLES, "autoencoder"}:
        raise UserError(f"a store is called as a baseline is, {taken.pop()}; rename it")
    home = run_of(stores[0], run)
    model, data = open_run(home, torch.device(device), dict(changes or {}), None, voice)
    fills = [Filled.open(path, name, model.fields)
             for path, name in zip(stores, names, strict=True)]  # fmt: skip
    hidden = hidden_from(fills, model, data, truth, notes)
    scorer = Scorer(
        model.fields.names, regions(model.fields.grid), model.fields.grid.area,
        model.normaliser.std, [0.0], model.recipe.evaluation.headline or model.fields.names,
        find_winds(model.fields.names),
    )  # fmt: skip
    makers: dict[str, Rival] = {one.name: _stored(one, hidden) for one in fills}
    makers |= dict(fill_rivals(hidden, voice, notes))
    worth = np.flatnonzero(hidden.asked.reshape(len(hidden.times), -1).any(1))
    with voice.progress("scores") as report:
        for done, number in enumerate(worth, start=1):
            centre = model.normaliser.centre(hidden.times[[number]])[0]
            for name in list(makers):
                try:
                    members = makers[name](int(number))
                except UserError as error:
                    if name in names:
                        raise
                    del makers[name]
                    scorer.forecasts.pop(name, None)
                    notes.append(f"The baseline {name} is left out: {error}")
                    continue
                scorer.add(
                    name, hidden.times[number], 0, members, hidden.truth[number],
                    hidden.asked[number], centre,
                )  # fmt: skip
            report(done / len(worth))
    return _read_out(fills, hidden, scorer, makers, home, truth, notes)


def _stored(one: Filled, hidden: Hidden) -> Rival:
    rows = np.searchsorted(one.times, hidden.times)
    return lambda number: one.read(int(rows[number]), hidden.model.fields, hidden.members)


def _read_out(
    fills: Sequence[Filled],
    hidden: Hidden,
    scorer: Scorer,
    makers: Mapping[str, Rival],
    home: Path,
    truth: Path | None,
    notes: list[str],
) -> Scored:
    model = hidden.model
    note_scarce(scorer, scorer.seen(fills[0].name, 0), "times", notes)
    pairs = [(one.name, name) for one in fills for name in scorer.forecasts if name != one.name]
    compared = [paired_table(scorer, a, b) for a, b in pairs]
    table = pd.concat(compared, ignore_index=True) if compared else pd.DataFrame()
    scores, ranks = score_table(scorer), rank_table(scorer)
    for one in (scores, ranks, table):  # a fill has no lead
        one["lead_hours"] = np.nan
    most = int(hidden.asked.reshape(len(hidden.times), -1).sum(1).argmax())
    provenance = _provenance(fills, hidden, home, truth, notes)
    return Scored(
        scores, ranks, pd.DataFrame(), table, _examples(hidden, makers[fills[0].name], most),
        model.fields, list(model.recipe.evaluation.headline or model.fields.names),
        {channel.name: channel.units for channel in model.fields.channels},
        provenance, notes,
    )  # fmt: skip


def _provenance(
    fills: Sequence[Filled], hidden: Hidden, home: Path, truth: Path | None, notes: list[str]
) -> dict[str, Any]:
    """Where all this comes from; nothing of it depends on the machine."""
    data, ends = hidden.data, [str(time.astype("M8[s]")) for time in hidden.times[[0, -1]]]
    facts = {
        fill.name: {k: v for k, v in fill.ds.attrs.items() if str(k).startswith("infill_")}
        for fill in fills
    }
    line = {"fills": facts, "first": ends[0], "last": ends[1], "times": len(hidden.times)}
    return {
        "source": data.source,
        "data": data.title,
        "data_fingerprint": data.fingerprint,
        "truth": truth.name if truth else "the data of the run",
        "times": f"{len(hidden.times)}, {ends[0]} … {ends[1]}",
        "evaluation_seed": hidden.seed,
        "sciladm_version": version("sciladm"),
        "run": home.resolve().name,
        "test_reads": note_reading("evaluate", data, hidden.times, line, home, notes),
        **{fill.name: {"store": fill.path.name, **facts[fill.name]} for fill in fills},
        "recipe": hidden.model.recipe.text(),
    }


def _examples(hidden: Hidden, make: Rival, number: int, count: int = 3) -> list[Example]:
    """The first headline variables at the time of most gaps."""
    model, drawn = hidden.model, make(number)
    centre = model.normaliser.centre(hidden.times[[number]])[0]
    out = []
    for name in (model.recipe.evaluation.headline or model.fields.names)[:count]:
        c = model.fields.names.index(name)
        seen = np.where(hidden.asked[number, c], np.float32(np.nan), hidden.truth[number, c])
        out.append(Example(
            name, model.fields.channels[c].units, hidden.times[number], AT_ONCE[0],
            hidden.truth[number, c], drawn[:, c], centre[c], seen,
        ))  # fmt: skip
    return out
