"""Both ways and typicality on Datasets, with trained runs of small simulated worlds."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import sciladm
from sciladm.conventions import UserError
from sciladm.tasks import typicality as module
from sciladm.tasks.typicality import Usual
from tests.conftest import open_in

ROOT = Path(__file__).parents[1]
DAY = np.timedelta64(1, "D")


@pytest.fixture
def trained(tiny_run, tiny_cache, tmp_path):
    """A copy: typicality keeps its answers in the run's folder, which other tests compare."""
    return sciladm.load(shutil.copytree(tiny_run, tmp_path / "run"))


def states(model, cache, split="test", days=None):
    """The run's variables once a day."""
    data = open_in(cache, model.model.recipe)
    fields = model.model.fields
    ds = data.frames.ds.isel(time=data.indices(split)[::4][:days])[list(fields.attributes)]
    levels = sorted({c.level for c in fields.channels if c.level is not None})
    return ds.sel(level=levels).load()


@pytest.fixture
def days(trained, tiny):
    return states(trained, tiny.cache, days=6)


def relative(found, true):
    """Root mean square difference over the standard deviation, the largest of all variables."""
    return max(
        float(((found[v] - true[v]) ** 2).mean() ** 0.5 / true[v].std()) for v in found.data_vars
    )


def test_invert_and_back(trained, days):
    noise = trained.invert(days)
    assert noise.sizes["time"] == 5 and (noise.time.values == days.time.values[1:]).all()
    assert 0.5 < float((noise.noise**2).mean()) < 2
    back = trained.draw(noise, days)
    want = trained.decode(trained.encode(days)).sel(time=back.time)
    wide = want - want.mean("time")  # far less than the whole field's standard deviation
    for name in want.data_vars:
        error = float(((back[name] - want[name]) ** 2).mean() ** 0.5)
        assert error < 1e-3 * float(wide[name].std()), name
    other = trained.draw(-noise, days)
    assert relative(other, want) > 0.01  # another noise, another state


def test_draw_for_some_of_the_times(trained, days):
    noise = trained.invert(days)
    whole = trained.draw(noise, days)
    some = trained.draw(noise.isel(time=[3, 1]), days)
    assert relative(some, whole.isel(time=[3, 1])) < 1e-5
    with pytest.raises(UserError, match="noise is given at"):
        trained.draw(noise.assign_coords(time=noise.time + 1000 * DAY), days)
    with pytest.raises(UserError, match="needs `noise`"):
        trained.draw(days, days)


def test_interpolate_from_one_state_to_another(trained, days):
    one, other = days.isel(time=slice(0, 2)), days.isel(time=slice(3, 5))
    way = trained.interpolate(one, other, n=3)
    assert way.share.values.tolist() == [0, 0.5, 1]
    for end, ds in ((0, one), (2, other)):
        want = trained.decode(trained.encode(ds.isel(time=[1]))).isel(time=0, drop=True)
        anomaly = float((days - days.mean("time"))["temperature"].std())
        error = (way.isel(share=end)["temperature"] - want["temperature"]) ** 2
        assert float(error.mean() ** 0.5) < 1e-3 * anomaly
    with pytest.raises(UserError, match="ends included"):
        trained.interpolate(one, other, n=1)


def test_log_likelihood(trained, days):
    found = trained.log_likelihood(days, evaluations=16, probes=3)
    assert found.time.equals(days.time)
    value = found.log_likelihood.values
    assert np.isnan(value[0]) and np.isfinite(value[1:]).all()
    assert (found.standard_error.values[1:] < 0.02).all()
    again = trained.log_likelihood(days.isel(time=slice(2, 4)), evaluations=16, probes=3)
    np.testing.assert_allclose(again.log_likelihood.values[1:], value[3:4], atol=1e-5)


def test_likelihood_is_that_of_a_gaussian_where_the_network_says_nothing(trained, days):
    """Then departures are white noise through S, and the density has a closed form."""
    model = trained.model
    last = model.denoiser.backbone.leave[-1]
    weight, bias = last.weight.clone(), last.bias.clone()
    last.weight.zero_(), last.bias.zero_()
    try:
        found = trained.log_likelihood(days, probes=1).log_likelihood.values[1:]
        z = torch.from_numpy(trained.encode(days).latent.values)
        for n in range(1, 6):
            forcings = model.forcings(days.time.values[[n]])[None]
            context = model.denoiser.context(z[[n - 1]], forcings, model.latent_statics)
            unit = torch.eye(context.mean[0].numel()).view(-1, *context.mean.shape[1:])
            root = (model.denoiser.clean(unit, context) - context.mean).flatten(1).double()
            off = (z[[n]] - context.mean).flatten().double()
            covariance = root.T @ root
            law = torch.distributions.MultivariateNormal(torch.zeros_like(off), covariance)
            exact = float(law.log_prob(off)) / len(off)
            assert found[n - 1] == pytest.approx(exact, abs=0.01)
    finally:
        last.weight.copy_(weight), last.bias.copy_(bias)


def test_without_the_past(trained, days):
    alone = days.isel(time=[2])
    for ask in (trained.invert, trained.log_likelihood):
        with pytest.raises(UserError, match="1 before it, 24h apart"):
            ask(alone)
    with pytest.raises(UserError, match="1 before it"):
        trained.log_likelihood(days.isel(time=[0, 2, 4]))
    with pytest.raises(UserError, match="probes"):
        trained.log_likelihood(days, probes=0)


def deviations(model, ds):
    """Standard deviations of anomalies, as Dataset."""
    ones = np.broadcast_to(
        model.normaliser.std.reshape(-1, *[1] * len(model.grid.shape)),
        (len(model.fields.channels), *model.fields.grid.shape),
    )
    return model.fields.to_dataset(ones.astype(np.float32), (), {})


def blurred(ds, times=2):
    for _ in range(times):
        ds = sum(ds.roll(longitude=n) for n in (-1, 0, 1)) / 3
        ds = ds.pad(latitude=1, mode="edge").rolling(latitude=3, center=True).mean()
        ds = ds.isel(latitude=slice(1, -1))
    return ds


def corruptions(model, ds, noise_size):
    std, rng = deviations(model.model, ds), np.random.default_rng(0)
    noise = ds.map(lambda v: v.copy(data=rng.standard_normal(v.shape)))
    turned = ds.isel(latitude=slice(None, None, -1)).assign_coords(latitude=ds.latitude)
    return {
        "blurred": blurred(ds),
        "noisy": ds + noise_size * std * noise,
        "hemisphere": turned,
        "unit": ds.assign({"2m_temperature": ds["2m_temperature"] - 273.15}),
        "+3 sd": ds + 3 * std,
    }


def auc(bad, good):
    """The chance that a bad state lies farther from the usual than a good one."""
    return float(np.mean(bad[:, None] > good[None]) + 0.5 * np.mean(bad[:, None] == good[None]))


def separation(model, good, bad):
    """AUC of each kind of bad Dataset against the good one, all states with their past."""
    reach = lambda found: found.distance.values[found.given_past.values]
    normal = reach(good)
    return {name: auc(reach(model.typicality(ds)), normal) for name, ds in bad.items()}


def test_typicality_tells_bad_states(trained, tiny, monkeypatch):
    monkeypatch.setattr(module, "STATES", 50)
    monkeypatch.setattr(module, "EVALUATIONS", 10)
    monkeypatch.setattr(module, "STORE", "typicality-of-60.safetensors")
    ds = states(trained, tiny.cache, days=16)
    good = trained.typicality(ds)
    assert (trained.model.path / "typicality-of-60.safetensors").exists()
    assert good.given_past.values.tolist() == [False] + [True] * 15
    assert np.isnan(good.apart.values[0]).any() and np.isfinite(good.apart.values[1:]).all()
    assert float(good.typicality.mean()) > 0.2 and float(good.typicality.min()) > 0
    found = separation(trained, good, corruptions(trained, ds, 0.6))
    assert min(found.values()) >= 0.95, found
    same = separation(trained, good, {"good": states(trained, tiny.cache, days=36).isel(
        time=slice(20, 36))})  # fmt: skip
    assert 0.1 < same["good"] < 0.9, same


def test_usual_answers_are_uniformly_typical():
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((30, 30))
    normal, fresh = (rng.standard_normal((n, 30)) @ mixing + 5 for n in (150, 4000))
    usual = Usual(normal)
    rank = usual.typicality(usual.distance(fresh))
    assert abs(float(rank.mean()) - 0.5) < 0.08
    assert 0.02 < float((rank < 0.05).mean()) < 0.12
    low, high = fresh - 4 * normal.std(0), fresh + 4 * normal.std(0)
    for odd in (low, high):  # two ends
        assert usual.typicality(usual.distance(odd)).max() < 0.02
    one = fresh.copy()
    one[:, 3] += 8 * normal.std(0)[3]  # a single answer
    assert (usual.typicality(usual.distance(one)) < 0.05).mean() > 0.95
    with pytest.raises(UserError, match="too few"):
        Usual(normal[:10])


def test_typicality_with_a_reference_and_without_the_past(trained, tiny, monkeypatch):
    monkeypatch.setattr(module, "EVALUATIONS", 8)
    reference = states(trained, tiny.cache, "validation", days=26)
    alone = states(trained, tiny.cache, days=3).isel(time=[0, 2])
    found = trained.typicality(alone, reference=reference)
    assert not found.given_past.any() and (found.typicality > 0).all()
    warm = alone.assign({"2m_temperature": alone["2m_temperature"] + 60})
    worse = trained.typicality(warm, reference=reference)
    assert (worse.distance > found.distance.max() + 2).all()
    told = worse.apart.isel(time=0).dropna("question")
    worst = str(told.question[int(np.argmax(np.abs(told.values)))].values)
    assert "2m_temperature" in worst or "latent" in worst


@pytest.mark.slow
def test_typicality_with_all_seasons(tiny_cache, tmp_path):
    """Bar 4 in full: three years of training, so that a wrong season is one."""
    card = (ROOT / "datasets" / "tiny.yaml").read_text()
    short, long = "train: 2, validation: 1, test: 1, days: 120", "train: 3, validation: 1, test: 1"
    assert short in card
    (tmp_path / "years.yaml").write_text(card.replace(short, long + ", days: 365"))
    run = tmp_path / "run"
    recipe, changes = ROOT / "recipes" / "tiny.yaml", {"data.card": str(tmp_path / "years.yaml")}
    trained = sciladm.fit(recipe, run_dir=run, changes=changes)
    whole = states(trained, tiny_cache.cache)
    ds = whole.isel(time=[n for n in range(whole.sizes["time"]) if n % 6 < 2])
    bad = corruptions(trained, ds, 0.3)
    bad["season"] = ds.assign_coords(time=ds.time + 182 * DAY)
    found = separation(trained, trained.typicality(ds), bad)
    print({name: round(value, 4) for name, value in found.items()})
    assert min(found.values()) >= 0.95, found
    shutil.rmtree(run)
