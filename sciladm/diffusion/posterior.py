"""What is drawn, given what was observed of it: a denoiser made of a denoiser.

Observations y = A x₀ + e, e ~ N(0, diag(std²)). Given noisy x = x₀ + σ n, too,

    E[x₀ | x, y] = D + C Aᵀ (diag(std²) + A C Aᵀ)⁻¹ (y − A D),   D = E[x₀ | x],  C = Cov[x₀ | x]

for Gaussian x₀ | x. C is σ² ∂D/∂x (Tweedie): a product with it is one backward pass through the
network (Rozet et al. 2024, arXiv:2405.13712, section 3). Where noise drowns the data that would be
σ² times a tiny derivative with all of a network's faults; there C is the climate's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciladm.diffusion.sampler.base import Denoise

Product = Callable[[Tensor], Tensor]
"""x (batch, …) → the product of a symmetric matrix with it, likewise."""
LARGEST = 4096
"""Observations, or numbers drawn, up to which the matrix between them is made."""
NOTHING, ROUNDING = 1e-6, 1e-15
"""Eigenvalues beside 1, and of the largest, which say nothing."""


@dataclass(frozen=True, eq=False)
class Observations:
    """``told``: x (batch, channel, *space) → what it says of them (batch, observation);
    ``wanted``, what it should say, (observation,) or with a batch; both in standard errors that
    are independent. ``told`` may be nonlinear as far as its tangent holds."""

    told: Callable[[Tensor], Tensor]
    wanted: Tensor


@dataclass(frozen=True, eq=False)
class Curvature:
    """A Aᵀ for white x₀, along its eigenvectors (observation, mode) with ``values`` (mode,):
    near enough to every member's equations to make them easy."""

    vectors: Tensor
    values: Tensor

    @classmethod
    def of(cls, told: Product, like: Tensor, count: int, size: int = 64) -> "Curvature | None":
        """Of ``count`` observations, at x₀ = 0 of the shape of ``like`` (1, channel, *space); None
        where both are many, or none is."""
        if not 0 < min(count, like.numel()) <= LARGEST:
            return None
        rows = []
        with torch.inference_mode(False), torch.enable_grad():
            for some in torch.split(torch.arange(count).to(like.device), size):
                centre = like.new_zeros(len(some), *like.shape[1:]).requires_grad_()
                one = told(centre).gather(1, some[:, None]).sum()
                rows.append(torch.autograd.grad(one, centre)[0].flatten(1))
        vectors, values = squared(torch.cat(rows).double())
        return cls(vectors.to(like), values.to(like))

    def power(self, variance: float, exponent: float) -> Product:
        """(1 + variance · A Aᵀ) to a power: its −½ makes misfits white where C is ``variance``
        times the identity."""
        less = 1 - (1 + variance * self.values) ** exponent
        return lambda dual: dual - (dual @ self.vectors * less) @ self.vectors.T


def squared(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors (row, mode) and eigenvalues (mode,) of M Mᵀ, without those that are nothing, by
    way of the smaller side of M: a fifth of the time of singular values, which small ones that
    matter beside 1 do not need."""
    wide = matrix.shape[0] <= matrix.shape[1]
    values, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    kept = values > NOTHING + ROUNDING * values[-1:]
    values, vectors = values[kept], vectors[:, kept]
    return (vectors if wide else matrix @ vectors / values.sqrt()), values


def weights(curvature: Curvature | None, variance: float) -> tuple[Product, Product]:
    """What misfits are multiplied by before equations are solved, and its square."""
    if curvature is None:
        return _same, _same
    return curvature.power(variance, -0.5), curvature.power(variance, -1.0)


class Tangent:
    """What ``told`` says at a point, ``said``, and products with its derivative A there."""

    def __init__(self, told: Product, at: Tensor) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            self._at = at.detach().clone().requires_grad_()
            self._there = told(self._at)
            self._dual = torch.zeros_like(self._there, requires_grad=True)
            # Aᵀ v is linear in v: its own transpose is A.
            (self._pulled,) = torch.autograd.grad(
                self._there, self._at, self._dual, create_graph=True
            )
        self.said = self._there.detach()

    def back(self, dual: Tensor) -> Tensor:
        """Aᵀ dual."""
        return torch.autograd.grad(self._there, self._at, dual, retain_graph=True)[0]

    def ahead(self, x: Tensor) -> Tensor:
        """A x."""
        return torch.autograd.grad(self._pulled, self._dual, x, retain_graph=True)[0]


class Posterior:
    """D(x, σ) → E[x₀ | x, y]; for one call of a sampler, whose last solution is where the next
    step begins. A sampler that corrects its steps without evaluating anew is not for it.

    prior: σ → products with Cov[x₀ | x] of the climate, taken while σ ≥ ``switch`` (about the root
    of its largest eigenvalue; for whitened x the products are x σ²/(1 + σ²)). The equations are
    solved by GMRES, since a network's derivative is not symmetric, for each member by itself until
    what is left of them is a share ``tolerance``, by at most ``most`` products a step; with the
    climate's C, which costs no network, five times as exactly: what is drawn of the largest scales
    is settled there. curvature, for white x: misfits are weighed by
    what the climate lets expect of them, which spares most of the products.
    """

    def __init__(
        self,
        denoise: Denoise,
        observations: Observations,
        prior: Callable[[float], Product],
        switch: float,
        tolerance: float = 0.05,
        most: int = 50,
        curvature: Curvature | None = None,
    ) -> None:
        self.denoise, self.observations, self.prior = denoise, observations, prior
        self.switch, self.tolerance, self.most = switch, tolerance, most
        self.curvature = curvature
        self.dual: Tensor | None = None
        self.left: list[float] = []
        """Of each step, the largest share of the equations that is left."""
        self.products = 0
        """Backward passes through the network, so far."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x (batch, channel, *space) → likewise."""
        through = bool(sigma < self.switch)
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone().requires_grad_(through)
            expected = self.denoise(x, sigma)
        tangent = Tangent(self.observations.told, expected)
        root, own = weights(self.curvature, sigma**2 / (1 + sigma**2))

        def back(dual: Tensor) -> Tensor:
            """C Aᵀ root dual (batch, channel, *space)."""
            pulled = tangent.back(root(dual))
            if not through:
                return self.prior(sigma)(pulled)
            self.products += 1
            (pulled,) = torch.autograd.grad(expected, x, pulled, retain_graph=True)
            return sigma**2 * pulled

        ahead = lambda pulled: root(tangent.ahead(pulled))
        misfit = root(self.observations.wanted - tangent.said)
        tolerance = self.tolerance if through else self.tolerance / 5
        found = solve(back, ahead, misfit, self.dual, tolerance, self.most, own)
        self.dual, gained, left = found
        self.left.append(float(left.max()))
        return expected.detach() + gained


def solve(
    back: Callable[[Tensor], Tensor],
    ahead: Callable[[Tensor], Tensor],
    misfit: Tensor,
    guess: Tensor | None,
    tolerance: float,
    most: int,
    own: Product | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """v of own(v) + ahead(back(v)) = misfit by GMRES (Saad & Schultz 1986), a batch side by side.

    → v (batch, observation), back(v), which costs no further product, and what is left, as a share
    of the misfit (batch,). ``guess`` is kept where it is nearer than 0; ``own`` is the identity
    where it is not given. A member has the solution of its own first step below
    ``tolerance``, whoever else is in the batch.
    """
    own = own or _same
    size = norm(misfit).clamp(min=1e-30)
    start, pulled = torch.zeros_like(misfit), None
    rest = misfit
    if guess is not None:
        pulled = back(guess)
        closer = misfit - own(guess) - ahead(pulled)
        keep = norm(closer) < size
        start = guess.where(keep[:, None], 0.0)
        pulled = pulled.where(along(keep, pulled), 0.0)
        rest = closer.where(keep[:, None], misfit)
    length = norm(rest)
    basis = [rest / length.clamp(min=1e-30)[:, None]]
    images: list[Tensor] = []
    columns: list[Tensor] = []  # of the Hessenberg matrix, each (batch, step + 2)
    left = (length / size).double()
    done = left <= tolerance
    weights = misfit.new_zeros(len(misfit), 0, dtype=torch.float64)
    while not done.all() and len(images) < most:
        images.append(back(basis[-1]))
        next_ = own(basis[-1]) + ahead(images[-1])
        column = []
        for vector in basis:
            share = (next_.double() * vector.double()).sum(1)
            next_ = next_ - share.to(next_)[:, None] * vector
            column.append(share)
        column.append(norm(next_).double())
        columns.append(torch.stack(column, dim=1))
        basis.append(next_ / norm(next_).clamp(min=1e-30)[:, None])
        found, remains = least_squares(columns, length.double())
        weights = torch.nn.functional.pad(weights, (0, 1))
        weights = weights.where(done[:, None], found)
        left = left.where(done, remains / size)
        done = done | (left <= tolerance)
    for n, image in enumerate(images):
        weight = weights[:, n].to(misfit)
        start = start + weight[:, None] * basis[n]
        step = along(weight, image) * image
        pulled = step if pulled is None else pulled + step
    if pulled is None:
        pulled = back(start)
    return start, pulled, left


def _same(x: Tensor) -> Tensor:
    return x


def least_squares(columns: list[Tensor], length: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (batch, step) that make |length · e₁ − H w| least, and what it is then (batch,)."""
    steps = len(columns)
    rows = [torch.nn.functional.pad(c, (0, steps + 1 - c.shape[1])) for c in columns]
    matrix = torch.stack(rows, dim=2)
    goal = torch.nn.functional.pad(length[:, None, None], (0, 0, 0, steps))
    found = torch.linalg.lstsq(matrix, goal).solution
    return found[..., 0], (goal - matrix @ found).flatten(1).norm(dim=1)


def norm(x: Tensor) -> Tensor:
    """Of each row (batch,); summed in float64."""
    return x.double().square().sum(1).sqrt().to(x)


def along(vector: Tensor, like: Tensor) -> Tensor:
    """(batch,) → (batch, 1, …), to broadcast against (batch, channel, *space)."""
    return vector.view(-1, *[1] * (like.ndim - 1))
