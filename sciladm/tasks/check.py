"""Are synthetic fields as good as real ones? Scores against what real years score, and a verdict.

It knows no model: three data sets in, scores out.
"""

from functools import partial

import numpy as np
import xarray as xr

from sciladm.data.times import ticks
from sciladm.metrics import faithfulness as faith
from sciladm.metrics.copying import nearest, nearest_shifted, tail, tail_bound
from sciladm.metrics.faithfulness import Score
from sciladm.metrics.usefulness import usefulness
from sciladm.tasks.judge import MOST, Floats, Judge, coarse, coarse_mask, thin
from sciladm.tasks.states import Array, Bools, read_trio

HALF_YEAR = 183 * 86_400_000_000
MOST_SHIFTED, COMPONENTS, COVERED = 400, 64, 16
SPECTRAL_BAR, MARGINAL_BAR, RECALL_BAR = 0.05, 0.05, 0.9
FITTED_MEAN, FITTED_POWER = 0.1, 0.05


def check_augmentation(
    synthetic: xr.Dataset,
    train: xr.Dataset,
    test: xr.Dataset,
    seed: int = 0,
    shortest: float = 2.0,
) -> xr.Dataset:
    """Scores of ``synthetic`` against ``train``, held against those of real years, and a verdict.

    All three have the same variables and grid; real ones and ``test``, which no model has seen,
    have ``time``; synthetic ones (sample[, frame]) with a coordinate ``time``, or (member, time).
    Returns ``value``, ``bound`` and ``passed`` (score) with coordinates ``check``, ``variable``
    and ``sense``; ``spectrum_ratio`` (channel, wavenumber); ``usefulness`` (trained_on), which is
    no part of the attribute ``verdict``, "pass" or "fail". ``shortest`` wavelength [cells] that
    spectra are judged at: an autoencoder's cutoff and two cells more. ``seed`` draws the real
    sets. UserError for less than 100 samples or 4 years of train, other variables or grids, and
    where times are missing.
    """
    judge = Judge(
        read_trio(synthetic, train, test), np.random.Generator(np.random.Philox(seed)), shortest
    )
    scores: dict[tuple[str, str], Score] = {
        ("months", "all"): months(judge),
        ("copying", "all"): copying(judge),
        ("shifted_copying", "all"): shifted_copying(judge),
        **kernels(judge),
    }
    for number, name in enumerate(judge.trio.fields.names):
        scores["spectrum", name] = spectrum(judge, number, name)
        scores["marginals", name] = marginals(judge, number)
        scores["fitted_mean", name] = fitted_mean(judge, number)
        scores["fitted_power", name] = fitted_power(judge, number)
    return as_dataset(judge, scores)


def months(judge: Judge) -> Score:
    """How far the histogram of months is from train's; frames of one draw have one month."""
    drawn, real = judge.trio.synthetic, judge.trio.train.months
    bound = faith.months_bound(len(drawn.months) // drawn.frames, real, judge.rng)
    return Score(faith.months_apart(drawn.months, real), bound)


def apart(judge: Judge) -> Bools:
    """Which training fields are more than half a year from which (m, m): the ones held out from
    the others, when it is asked how near real fields come."""
    real = ticks(judge.trio.train.times)
    return np.asarray(np.abs(real[:, None] - real) > HALF_YEAR)


def copying(judge: Judge) -> Score:
    """Tail of the distances to training fields, against those of fields held out."""
    train, test, ours = (judge.flat(x) for x in (judge.train, judge.test, judge.synthetic))
    held = np.concatenate([nearest(test, train), nearest(train, train, apart(judge))])
    bound = tail_bound(len(ours), len(held), judge.rng)
    return Score(tail(nearest(ours, train), held), bound)


def shifted_copying(judge: Judge) -> Score:
    """The same under all shifts, on a grid of no more than WIDEST cells along an axis."""
    ends = judge.trio.fields.grid.boundaries
    train, test, ours = (
        coarse(judge.flat(x).reshape(x.shape), ends)
        for x in (judge.train, judge.test, judge.synthetic)
    )
    few, valid = thin(len(train), MOST_SHIFTED), coarse_mask(judge.trio.valid, judge)
    held = np.concatenate([
        nearest_shifted(test[thin(len(test), MOST_SHIFTED)], train, valid, ends),
        nearest_shifted(train[few], train, valid, ends, apart(judge)[few]),
    ])  # fmt: skip
    found = tail(nearest_shifted(ours, train, valid, ends), held)
    return Score(found, tail_bound(len(ours), len(held), judge.rng))


def spectrum(judge: Judge, number: int, name: str) -> Score:
    """Largest departure from 1 of the ratio of power to train's, in bands of a third or so of an
    octave, in units of what is allowed."""
    ours = judge.spectrum(judge.synthetic[:, number]).mean(axis=0)
    each = judge.spectrum(judge.train[:, number])
    real = each.mean(axis=0)
    banded = partial(bands, judge)
    among = [banded(a.mean(axis=0)) / banded(b.mean(axis=0)) - 1 for a, b in judge.among(each)]
    judge.ratios[name] = ours / real
    return faith.against(banded(ours) / banded(real) - 1, np.array(among), SPECTRAL_BAR)


def bands(judge: Judge, power: Floats) -> Floats:
    """Power (…, wavenumber) in those that are judged, in thirds of an octave (…, band)."""
    picked = judge.spectrum.wavenumbers
    cells = max(judge.trio.fields.grid.shape)
    judged = ~judge.spectrum.aliased & (picked <= cells / judge.shortest)
    band = np.unique(np.rint(3 * np.log2(picked[judged])), return_inverse=True)[1]
    return np.asarray(power[..., judged] @ np.eye(band.max() + 1)[band])


def marginals(judge: Judge, number: int) -> Score:
    """Largest departure of mean, standard deviation and quantiles [train's sd], over cells drawn
    by their area, in units of what is allowed."""
    weight: Floats = judge.weight[number].ravel() / judge.weight[number].sum()
    count = min(256, int(np.count_nonzero(weight)))
    cells = judge.rng.choice(len(weight), count, p=weight)
    sd = judge.sd[number].ravel()[cells]

    def some(anomalies: Array) -> Floats:
        return np.asarray(anomalies[:, number].reshape(len(anomalies), -1)[:, cells] / sd)

    real = some(judge.train)
    departures = faith.moments(some(judge.synthetic)) - faith.moments(real)
    among = [faith.moments(a) - faith.moments(b) for a, b in judge.among(real)]
    return faith.against(departures, np.array(among), MARGINAL_BAR)


def fitted_mean(judge: Judge, number: int) -> Score:
    """How far the mean over samples and area is from train's [train's sd]. Real years may differ
    by more: samples are of all years that they were learnt from."""
    weight = judge.weight[number] / judge.weight[number].sum()
    ours, real = (
        (x[:, number] / judge.sd[number] * weight).reshape(len(x), -1).sum(axis=1)
        for x in (judge.synthetic, judge.train)
    )
    return fitted(judge, ours[:, None], real[:, None], FITTED_MEAN)


def fitted_power(judge: Judge, number: int) -> Score:
    """The same of power, over train's, in the bands of `spectrum`."""
    ours, real = (
        bands(judge, judge.spectrum(x[:, number])) for x in (judge.synthetic, judge.train)
    )
    whole = real.mean(axis=0)
    return fitted(judge, ours / whole, real / whole, FITTED_POWER)


def fitted(judge: Judge, ours: Floats, real: Floats, bar: float) -> Score:
    """The largest of the means of samples (n, k) less those of train (m, k), each in units of the
    bar or of four standard errors, were draws and times independent, whichever is larger."""
    draws = len(ours) / judge.trio.synthetic.frames
    error = np.sqrt(ours.var(axis=0) / draws + real.var(axis=0) / len(real))
    apart = np.abs(ours.mean(axis=0) - real.mean(axis=0))
    return Score(float((apart / np.maximum(bar, 4 * error)).max()), 1.0)


def components(fields: Floats) -> Floats:
    """The leading principal directions (cell, component) of fields (n, cell)."""
    some = fields[thin(len(fields), MOST)]
    values, vectors = np.linalg.eigh(some @ some.T)
    kept = (values > 1e-6 * values[-1]).nonzero()[0][::-1][:COMPONENTS]
    return np.asarray(some.T @ vectors[:, kept] / np.sqrt(values[kept]))


def kernels(judge: Judge) -> dict[tuple[str, str], Score]:
    """MMD² of anomalies and of fields with their season, and how much of test is covered."""
    ours, real = judge.flat(judge.synthetic), judge.flat(judge.train)
    axes = components(real)
    ours, real, test = ours @ axes, real @ axes, judge.flat(judge.test) @ axes
    few, some = ours[thin(len(ours), MOST)], real[thin(len(real), MOST)]
    width = faith.bandwidth(real)
    pairs = list(judge.among(real))
    bound = np.quantile([faith.mmd2(a, b, width) for a, b in pairs], 0.95)
    covered = faith.recall(test[:, :COVERED], few[:, :COVERED])
    least = [faith.recall(test[:, :COVERED], a[:, :COVERED]) for a, _ in pairs]
    return {
        ("mmd", "all"): Score(faith.mmd2(few, some, width), float(bound)),
        ("mmd_season", "all"): with_season(judge),
        ("coverage", "all"): Score(
            covered, min(RECALL_BAR * float(np.mean(least)), min(least)), at_least=True
        ),
    }


def with_season(judge: Judge) -> Score:
    """MMD² of fields that hold their seasonal cycle: mean over the sets of as many samples, of the
    same months, in place of each set. Spread evenly over the year, fields differ less than chance
    would have it, by the more the fewer they are. Months themselves are for `months` to judge."""
    ours, real = (judge.flat(judge.whole(x)) for x in (judge.trio.synthetic, judge.trio.train))
    axes = components(real)
    ours, real = ours @ axes, real @ axes
    width = faith.bandwidth(real)
    calendar = judge.trio.train.months
    found, among = [], []
    for chosen, (some, rest) in zip(judge.sets.chosen, judge.among(real), strict=True):
        count = np.bincount(calendar[chosen], minlength=13)
        instead = faith.matched(judge.trio.synthetic.months, count, judge.rng)
        found.append(faith.mmd2(ours[instead], rest, width))
        among.append(faith.mmd2(some, rest, width))
    return Score(float(np.mean(found)), float(np.quantile(among, 0.95)))


def as_dataset(judge: Judge, scores: dict[tuple[str, str], Score]) -> xr.Dataset:
    """What `check_augmentation` returns."""
    found = list(scores.values())
    train, ours, test = (
        coarse(x / judge.sd, judge.trio.fields.grid.boundaries)
        for x in (judge.train, judge.synthetic[thin(len(judge.synthetic), MOST)], judge.test)
    )
    useful = usefulness(train, ours, test, coarse_mask(judge.trio.valid, judge), judge.rng)
    names = list(judge.ratios)
    passed = all(score.passed for score in found)
    return xr.Dataset(
        {
            "value": ("score", [score.value for score in found]),
            "bound": ("score", [score.bound for score in found]),
            "passed": ("score", [score.passed for score in found]),
            "spectrum_ratio": (("channel", "wavenumber"), list(judge.ratios.values())),
            "usefulness": ("trained_on", list(useful.values())),
        },
        {
            "check": ("score", [check for check, _ in scores]),
            "variable": ("score", [name for _, name in scores]),
            "sense": ("score", ["at least" if s.at_least else "at most" for s in found]),
            "channel": names,
            "wavenumber": judge.spectrum.wavenumbers,
            "trained_on": list(useful),
        },
        {
            "verdict": "pass" if passed else "fail",
            "synthetic_samples": len(judge.synthetic),
            "train_samples": len(judge.train),
            "test_samples": len(judge.test),
        },
    )
