import pytest
import torch
from torch import nn

from sciladm.training.muon import QUINTIC, Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (40, 2, 3), (5, 5, 1, 1), (16, 64)])
def test_orthogonal_is_the_polar_factor(shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    got = orthogonal(gradient).flatten(1)
    u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    values = (u.T @ got @ v.T).diagonal()
    assert values.min() > 0.6 and values.max() < 1.3
    torch.testing.assert_close(u @ values.diag() @ v, got, atol=1e-4, rtol=0)


def test_orthogonal_is_the_published_iteration():
    x = torch.randn(12, 30, generator=torch.Generator().manual_seed(1))
    got, a, b, c = orthogonal(x), *QUINTIC
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    torch.testing.assert_close(got, x, atol=1e-5, rtol=0)


def test_other_weights_follow_adam():
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    muon = Muon(ours.parameters(), lr=0.04)
    adam = torch.optim.Adam(theirs.parameters(), lr=0.01, betas=(0.9, 0.99))
    for step in range(5):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for net, optimiser in ((ours, muon), (theirs, adam)):
            optimiser.zero_grad()
            (net(x) - x[:, :3] ** 2).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(ours.weight, theirs.weight, atol=1e-6, rtol=1e-5)


def test_convolutions_learn():
    torch.manual_seed(0)
    net = nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")
    goal = nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular").requires_grad_(False)
    muon, losses = Muon(net.parameters(), lr=0.05, weight_decay=0.0), []
    for step in range(200):
        muon.param_groups[0]["lr"] = 0.05 * (1 - step / 200)
        x = torch.randn(4, 3, 6, 6)
        loss = (net(x) - goal(x)).square().mean()
        muon.zero_grad()
        loss.backward()
        muon.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-3 * losses[0]
