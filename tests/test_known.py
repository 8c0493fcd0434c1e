"""Denoisers that see what was observed: against dense matrices, and laws known in closed form."""

import math

import pytest
import torch

from sciladm.conventions import UserError
from sciladm.diffusion.denoiser import Denoiser
from sciladm.diffusion.departure import Departure
from sciladm.diffusion.known import Informed, Law
from sciladm.diffusion.mean import MeanForecast
from sciladm.nn.linear import LocalLinear
from sciladm.recipe import parse
from sciladm.tasks.infill import Wish
from sciladm.tasks.known import Masks
from sciladm.tasks.windows import Windows
from tests.conftest import open_in

CHANNELS, SPACE = 2, (3, 4)
SHAPE = torch.Size((CHANNELS, *SPACE))
SIZE = SHAPE.numel()
ENDS = ("bounded", "periodic")


def operator(count, seed=0):
    """A (observation, number), float64, of which some say nearly nothing and some very much."""
    made = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, SIZE, generator=made, dtype=torch.float64)
    return rows * torch.logspace(-2, 2, count, dtype=torch.float64)[:, None]


def draws(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("count", [0, 5, SIZE, 40])
def test_laws_are_those_of_dense_matrices(count):
    """Fewer observations than numbers, as many, more; and none."""
    a = operator(count)
    law = Law.of(a.T, SHAPE)
    precision = torch.eye(SIZE).double() + a.T @ a
    covariance = torch.linalg.inv(precision)
    assert torch.allclose(law.std.flatten().square(), covariance.diagonal(), atol=1e-9)
    y, x, sigma = draws(3, count), draws(3, *SHAPE), torch.tensor([[0.1], [1.0], [20.0]]).double()
    known = law.given(y @ a)
    assert torch.allclose(known.mean.flatten(1), y @ a @ covariance, atol=1e-6)
    for n, level in enumerate(sigma.flatten()):
        c = torch.linalg.inv(precision + torch.eye(SIZE) / level**2)
        g = c @ (x[n].flatten() / level**2 + a.T @ y[n])
        assert torch.allclose(known.expected(x, sigma)[n].flatten(), g, atol=1e-6)
        coloured = known.coloured(known.coloured(x, sigma), sigma)[n].flatten()
        assert torch.allclose(coloured, c @ x[n].flatten(), atol=1e-9)
        assert torch.allclose(known.white(known.coloured(x, sigma), sigma), x)


def test_observing_modes_is_observing():
    """What training draws has the law of what observations tell: of r − mean, and of mean."""
    a, many = operator(9), 40000
    law = Law.of(a.T, SHAPE)
    r = draws(many, *SHAPE)
    by_modes = law.observed(r, draws(many, len(law.values), seed=2)).mean
    by_cells = law.given((r.flatten(1) @ a.T + draws(many, 9, seed=3)) @ a).mean
    covariance = torch.linalg.inv(torch.eye(SIZE).double() + a.T @ a)
    for mean in (by_modes, by_cells):
        off = (r - mean).flatten(1)
        assert (off.T @ off / many - covariance).abs().max() < 0.03
        assert (mean.flatten(1).T @ off / many).abs().max() < 0.03


class Says(torch.nn.Module):
    """A network that says the same number everywhere, and keeps what it saw."""

    def __init__(self, number=0.0):
        super().__init__()
        self.number, self.seen = number, None

    def forward(self, x, time):
        self.seen = x
        return torch.full((len(x), CHANNELS, *SPACE), self.number)


def informed(number=0.0, kind=Informed):
    rows = torch.arange(SPACE[0])[:, None].expand(*SPACE).contiguous()
    linear = LocalLinear(0, CHANNELS, rows, ENDS)
    departure = Departure(CHANNELS, rows, ENDS, 64)
    return kind(Says(number), MeanForecast(linear, None, False), departure, torch.ones(SPACE))


def nothing(batch):
    return torch.zeros(batch, 0, *SPACE)


def test_an_untrained_network_is_the_gaussian_and_its_loss_one():
    made, many = informed(), 4000
    law = Law.of(operator(9).T, SHAPE).to(torch.zeros(1))
    context = made.context(nothing(many), nothing(many), torch.zeros(0, *SPACE))
    r, noise = draws(many, *SHAPE).float(), draws(many, *SHAPE, seed=2).float()
    known = law.observed(r, draws(many, 9, seed=3).float())
    sigma = torch.logspace(-2, 2, many)
    x = r + sigma.view(-1, 1, 1, 1) * noise
    assert torch.equal(made(x, sigma, context, known), known.expected(x, sigma.view(-1, 1)))
    assert abs(float(made.loss(r, context, sigma, noise, known)) - 1) < 0.02
    blind = law.observed(0 * r, draws(many, 9, seed=3).float())
    assert float(made.loss(r, context, sigma, noise, blind)) > 1.5


def test_nothing_known_is_a_law_without_observations():
    """And with no network features beside it a plain denoiser."""
    made, plain, empty = informed(0.3), informed(0.3, Denoiser), Law.of(operator(0).T, SHAPE)
    context = made.context(nothing(2), nothing(2), torch.zeros(0, *SPACE))
    x, sigma = draws(2, *SHAPE).float(), torch.tensor([0.3, 4.0])
    known = empty.given(torch.zeros(2, 0).double() @ operator(0)).float()
    without = made(x, sigma, context)
    seen = made.backbone.seen
    assert torch.allclose(made(x, sigma, context, known), without, atol=1e-6)
    assert torch.allclose(made.backbone.seen, seen, atol=1e-6)
    assert torch.equal(without, plain(x, sigma, context))
    noise = draws(2, *SHAPE, seed=5).float()
    both = [made.loss(x, context, sigma, noise, some) for some in (known, None)]
    assert torch.allclose(*both, atol=1e-5)


def test_masks_of_training_are_functions_of_seed_and_step(masked, gaussian_folder):
    model = masked[0].model
    data = open_in(gaussian_folder / "cache", model.recipe)
    windows = Windows.of(model, data.splits, "train")
    one, other = Masks.of(model, windows), Masks.of(model, windows)
    r = draws(4, *model.denoiser.weight.shape).float()
    for step in range(4):
        told = [masks.known(r, step, 0) for masks in (one, other)]
        assert told[0] is told[1] is None or torch.equal(told[0].mean, told[1].mean)
    all_ = [one.known(r, step, part) for step in range(60) for part in (0, 1)]
    without = sum(known is None for known in all_)
    assert 15 < without < 48
    assert len({id(known.law) for known in all_ if known}) == len(one.laws) == 6


def test_masks_of_training_are_those_of_departures_as_large_as_the_season_says(
    masked, gaussian_folder
):
    """e^−½ as large, they are told e^−1 as well."""
    model = masked[0].model
    windows = Windows.of(model, open_in(gaussian_folder / "cache", model.recipe).splits, "train")
    weight = model.denoiser.base.season.weight
    before = weight.clone()
    told = []
    try:
        for size in (0.0, -0.5):
            weight.zero_()[..., -1] = size
            told.append([law.values.sum() for law in Masks.of(model, windows).laws])
    finally:
        weight.copy_(before)
    ratio = torch.stack(told[1]) / torch.stack(told[0])
    assert torch.allclose(ratio, torch.full_like(ratio, math.exp(-1)), rtol=1e-3)


def test_only_recipes_that_can_have_masks_do():
    tree = {"name": "x", "data": {"card": "gaussian"}, "denoiser": {"masks": 4}}
    with pytest.raises(UserError, match="scale: false"):
        parse(tree, {}, "here")
    for other in ({"denoiser.scale": False}, {"denoiser.mean_steps": 0}):
        assert parse(tree, other, "here").denoiser.masks == 4


def test_the_method_is_what_the_run_declares(masked, stills):
    """Points and means are for guidance, though `amortised` can be asked for them."""
    with_masks, without = masked[0].model, stills[0].model
    assert Wish().by(with_masks).method == "amortised"
    assert Wish(operator=(None,)).by(with_masks).method == "guided"
    assert Wish(method="oi").by(with_masks).method == "oi"
    assert Wish().by(without).method == "guided"
    with pytest.raises(UserError, match="without masks"):
        Wish(method="amortised").by(without)
