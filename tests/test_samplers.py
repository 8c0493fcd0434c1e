"""Every sampler against exact denoisers. For Gaussian data a sampler is an affine map of its
start and of each fresh draw, so that its variance is known exactly from unit impulses."""

import functools
import inspect
import itertools
import math

import numpy as np
import pytest
import torch

from sciladm import recipe_sampler
from sciladm.conventions import UserError
from sciladm.diffusion.noise import Key, unit_normal
from sciladm.diffusion.sampler import SAMPLERS, Ancestral, Ddim, Euler, Langevin, Multistep
from sciladm.diffusion.sampler import ddim as ddim_page
from sciladm.diffusion.sampler.base import Linear, power_grid
from sciladm.recipe import parse
from tests.oracles import gaussian_denoise, two_peaks_denoise

VARIANCES = torch.tensor([1, 0.3, 0.1, 0.03, 0.01, 0.003], dtype=torch.float64)
STOCHASTIC = {
    "heun": {"churn": 10.0}, "euler": {"churn": 10.0}, "ddim": {"eta": 0.5}, "ancestral": {},
    "dpm_solver_sde": {}, "langevin": {},
}  # fmt: skip


def _is_stochastic(name, told):
    return name in STOCHASTIC and bool(told or not STOCHASTIC[name])


def spread(sampler, variances=VARIANCES):
    """Standard deviation of the samples over the true one, for each mode; exact."""
    asked = []

    def listen(draw):
        asked.append(draw)
        return torch.zeros_like(variances)

    denoise = gaussian_denoise(variances)
    sampler.sample(denoise, torch.zeros_like(variances), listen)
    assert len(set(asked)) == len(asked), "a draw is used twice"
    impulse = torch.eye(max(asked, default=0) + 1, dtype=torch.float64)[:, :, None]
    gains = sampler.sample(denoise, impulse[0] + 0 * variances, lambda draw: impulse[draw])
    return (gains.square().sum(0) / variances).sqrt()


ORDERS = [
    ("ddim", 1, {}),
    ("ddim", 1, {"eta": 0.5}),
    ("ancestral", 1, {}),
    ("euler", 1, {}),
    ("euler", 1, {"churn": 10.0}),
    ("heun", 2, {}),
    ("heun", 2, {"churn": 10.0}),
    ("dpm_solver", 2, {}),
    ("dpm_solver_sde", 2, {}),
    ("langevin", 1, {"corrections": 0}),
    ("langevin", 2, {"corrections": 4}),  # each step forgets a share of the errors before it
    ("multistep", 1, {"order": 1, "corrector": False}),
    ("multistep", 2, {"order": 1}),  # the corrector takes both ends of a step
    ("multistep", 2, {"order": 2, "corrector": False}),
]


@pytest.mark.parametrize(("name", "order", "told"), ORDERS)
def test_order_of_the_variance(name, order, told):
    errors = [
        spread(SAMPLERS[name](steps, 1e3, 1e-4, **told), VARIANCES[:2]) - 1 for steps in (160, 320)
    ]
    assert torch.log2(errors[0] / errors[1]).numpy() == pytest.approx(order, abs=0.2), errors


@pytest.mark.parametrize(
    ("name", "order", "told"),
    [
        *((name, order, told) for name, order, told in ORDERS if not _is_stochastic(name, told)),
        ("multistep", 2, {"order": 2}),
        ("multistep", 3, {"corrector": False}),
        ("multistep", 3, {}),
    ],
)
def test_order_for_data_with_two_peaks(name, order, told):
    noise = torch.linspace(-2, 2, 12, dtype=torch.float64)
    denoise = functools.partial(two_peaks_denoise, share=0.2, variance=0.5)
    exact = Multistep(2000, 1e2, 1e-3).sample(denoise, noise)
    errors = [
        (SAMPLERS[name](steps, 1e2, 1e-3, **told).sample(denoise, noise) - exact).abs().max()
        for steps in (150, 300)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2), errors


def test_noise_of_the_wrong_size_is_caught():
    """Negative control: fresh noise at the whole of the new level, not the posterior's."""
    sampler = Ancestral(160, 1e3, 1e-4)
    sampler.updates = [u._replace(spread=s) for u, s in
                       zip(sampler.updates, [*sampler.sigmas[1:], 0.0], strict=True)]  # fmt: skip
    assert (spread(sampler) - 1).abs().min() > 0.5


@pytest.mark.parametrize(
    ("name", "steps", "worst"),
    [
        ("multistep", 9, 0.03),
        ("multistep", 11, 0.01),
        ("multistep", 18, 0.01),
        ("heun", 9, 0.4),  # 17 evaluations
        ("dpm_solver", 18, 0.05),
        ("ancestral", 18, 0.4),
    ],
)
def test_calibration_at_one_setting(name, steps, worst):
    """Six levels of variance, one setting; what few evaluations cost elsewhere is no accident."""
    end = 0.3 * 0.003**0.5 if name == "multistep" else 0.002
    error = float((spread(SAMPLERS[name](steps, 30.0, end)) - 1).abs().max())
    assert worst / 5 < error < worst


def test_few_evaluations_serve_data_with_two_peaks_too():
    """What makes ten evaluations enough for Gaussian data is no fit to Gaussian data."""
    noise = torch.special.ndtri((torch.arange(500, dtype=torch.float64) + 0.5) / 500)
    exact = Multistep(1000, 45.0, 1e-3).sample(two_peaks_denoise, noise)
    wrong = {
        steps: float((Multistep(steps, 45.0, 0.15).sample(two_peaks_denoise, noise) - exact)
                     .abs().mean()) for steps in (8, 10, 18)
    }  # fmt: skip
    assert wrong[8] < 0.015 and wrong[10] < 0.01 and wrong[18] < 0.004, wrong


def test_langevin_corrections_take_the_bias_away():
    worst = [
        float((spread(Langevin(20, 30.0, 1e-3, count)) - 1).abs().max())
        for count in (0, 1, 2, 4, 8, 16, 64)
    ]
    assert all(after < 0.75 * before for before, after in itertools.pairwise(worst))
    assert worst[-1] < 0.006


def test_langevin_has_no_bias_of_its_own():
    """A correction leaves the exact variance as it is, at any stride; the usual rule does not."""
    sigma, variance, stride = 0.7, torch.tensor([4.0, 0.5, 0.01], dtype=torch.float64), 0.5
    total, shrink = variance + sigma**2, stride * sigma**2 / (variance + sigma**2)
    lift = sigma * math.sqrt(stride / 2)
    after = (1 - shrink) ** 2 * (total - lift**2) + (2 - shrink) ** 2 * lift**2  # docstring's rule
    assert torch.allclose(after, total - lift**2, rtol=1e-14)
    usual = 2 * stride * sigma**2 / (1 - (1 - shrink) ** 2)
    assert (usual / total - 1).max() > 0.1


def test_first_order_samplers_are_one_map(monkeypatch):
    """Euler without churn is DDIM, DDIM at η = 1 draws from the exact q(x′ | x, x₀ = D)."""
    monkeypatch.setattr(ddim_page, "log_grid", power_grid)
    for one, other in zip(Ddim(9).updates, Euler(9).updates, strict=True):
        assert one.decay == pytest.approx(other.decay) and one.weights == pytest.approx(
            other.weights
        )
    sampler = Ancestral(9)
    levels = itertools.pairwise(sampler.sigmas)
    for (sigma, after), update in zip(levels, sampler.updates[:-1], strict=True):
        gain = (after / sigma) ** 2  # of a Gaussian conditional: precision-weighted
        assert update.decay == pytest.approx(gain)
        assert update.spread**2 == pytest.approx(
            1 / (1 / after**2 - 1 / sigma**2) * (1 - gain) ** 2
        )


@pytest.mark.parametrize(("name", "told"), [*STOCHASTIC.items(), ("multistep", {})])
def test_draws_of_data_with_two_peaks(name, told):
    """Mean, variance and share of the peaks, within four standard errors."""
    count, generator = 20_000, torch.Generator().manual_seed(3)
    draw = lambda _: torch.randn(count, generator=generator, dtype=torch.float64)
    got = SAMPLERS[name](120, 30.0, 0.01, **told).sample(two_peaks_denoise, draw(0), draw)
    first_order = 0.03 if name in ("euler", "ddim", "ancestral", "langevin") else 0.0
    assert float(got.mean()) == pytest.approx(-0.4, abs=4 * (1.09 / count) ** 0.5)
    assert float(got.var()) == pytest.approx(1.09, abs=4 * 1.09 * (2 / count) ** 0.5 + first_order)
    right = 0.3 * 0.97725 + 0.7 * 0.02275  # x₀ > 0
    assert float((got > 0).double().mean()) == pytest.approx(right, abs=4 * (0.25 / count) ** 0.5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_member_does_not_depend_on_its_neighbours(name):
    """The same bits beside any others in a batch of one shape, and the same draw alone."""

    def sample(*members):
        keys = [Key(5, 11, 7, member) for member in members]
        fresh = lambda draw: unit_normal(keys, "denoiser", draw, 2, (4, 6))
        sampler = SAMPLERS[name](6, 30.0, 0.02, **STOCHASTIC.get(name, {}))
        return sampler.sample(two_peaks_denoise, fresh(0), fresh)

    together = sample(3, 1, 2)
    assert torch.equal(sample(3, 8, 9)[0], together[0])
    assert not torch.equal(sample(4, 1, 2)[0], together[0])
    assert torch.allclose(sample(3)[0], together[0], atol=1e-5)


@pytest.mark.parametrize(("name", "told"), STOCHASTIC.items())
def test_fresh_noise_is_asked_for(name, told):
    with pytest.raises(ValueError, match="give `fresh`"):
        SAMPLERS[name](6, 30.0, 0.02, **told).sample(two_peaks_denoise, torch.ones(2))


class Forbidding(torch.Tensor):
    """A tensor that no one may look into: on a device, each look would wait for it."""

    FORBIDDEN = frozenset({
        "item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__",
        "__index__", "__array__", "__len__", "is_nonzero", "equal", "allclose",
    })  # fmt: skip

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ in cls.FORBIDDEN:
            raise AssertionError(f"waits for the device: {func.__name__}")
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_loop_looks_into_a_tensor(name):
    start = torch.randn(2, 3).as_subclass(Forbidding)
    sampler = SAMPLERS[name](6, 30.0, 0.02, **STOCHASTIC.get(name, {}))
    got = sampler.sample(lambda x, sigma: x / (1 + sigma**2), start, lambda draw: start)
    assert type(got) is Forbidding
    with pytest.raises(AssertionError, match="waits"):
        sampler.sample(lambda x, sigma: x * float(x.sum()), start, lambda draw: start)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SAMPLERS)
def test_no_loop_waits_for_the_device(name):
    start = torch.randn(2, 3, device="cuda")
    sampler = SAMPLERS[name](6, 30.0, 0.02, **STOCHASTIC.get(name, {}))
    torch.cuda.set_sync_debug_mode("error")
    try:
        sampler.sample(lambda x, sigma: x / (1 + sigma**2), start, lambda draw: start)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((name, {"steps": 1}) for name in SAMPLERS),
        *((name, {"sigma_min": 90.0}) for name in SAMPLERS),
        ("multistep", {"order": 4}),
        ("ddim", {"eta": 1.5}),
        ("heun", {"churn": -1.0}),
        ("euler", {"churn": -1.0}),
        ("langevin", {"corrections": -1}),
        ("langevin", {"stride": 0.0}),
    ],
)
def test_wrong_settings(name, told):
    with pytest.raises(ValueError, match=r"steps|eta|churn|corrections|order"):
        SAMPLERS[name](**told)


def test_recipe_knows_the_samplers_and_their_keys():
    assert set(recipe_sampler.Name.__args__) == set(SAMPLERS)
    for name, sampler in SAMPLERS.items():
        own = {key for key, owners in recipe_sampler.OWN_KEYS.items() if name in owners}
        takes = set(inspect.signature(sampler).parameters) - {"steps", "sigma_max", "sigma_min"}
        assert own == takes - {"stride"}


def test_keys_of_another_sampler_are_refused():
    def read(**keys):
        return parse({"name": "a", "data": {"path": "x.nc"}, "sampler": keys}, {}, "here").sampler

    assert read(name="heun", churn=20).own_keys() == {"churn": 20.0}
    assert read(name="ancestral").own_keys() == {}
    assert read().own_keys() == {} and read(corrector=False).own_keys() == {"corrector": False}
    with pytest.raises(
        UserError, match="heun has no use for `order`, which multistep may be told"
    ):
        read(name="heun", order=2)
    with pytest.raises(UserError, match="`churn`, which euler and heun may be told"):
        read(churn=3.0)
    with pytest.raises(UserError, match=r"sampler\.name"):
        read(name="hein")


def test_pages_are_linear_where_they_say_so():
    """Coefficients of a step that keeps a constant: decay + weights = 1."""
    for name, make in SAMPLERS.items():
        sampler = make(8, 30.0, 0.02, **STOCHASTIC.get(name, {}))
        if isinstance(sampler, Linear):
            for update in [*sampler.updates, *sampler.corrections]:
                assert update.decay + np.sum(update.weights) == pytest.approx(1, rel=1e-12)
