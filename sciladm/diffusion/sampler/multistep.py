"""The default: as few network evaluations as the spectrum of the data allows."""

import math

import numpy as np
from numpy.typing import NDArray

from sciladm.diffusion.sampler.base import Linear, Update, log_grid


class Multistep(Linear):
    """Exponential multistep in data prediction on a uniform log-σ grid; `steps` evaluations.

    With t = −ln σ the probability-flow equation reads dx/dt = D − x, so over a step of length h

        x(t + h) = e⁻ʰ x(t) + ∫₀ʰ e^{−(h − u)} D(t + u) du                              (exact)

    where D becomes the polynomial through the last `order` evaluations (DPM-Solver++,
    arXiv:2211.01095, eq. 11). The `corrector` repeats each step with the evaluation at its end in
    place of the oldest one (UniPC, arXiv:2302.04867; at order 1 with both ends). From σ_min to 0,
    D is carried on as a line in σ² through the last two evaluations, because near the data
    D(σ) = D(0) + O(σ²): stopping at D(σ_min) would damp a mode of variance v by (1 + σ²/v)^−½.

    Choose σ_max ≥ 30 √λ_max and σ_min ≈ 0.3 √λ_min for data whose covariance has eigenvalues
    λ_min … λ_max. Largest error of a mode's amplitude for modes of variance 1 … 0.003 and
    σ = 30 … 0.016, exact denoiser: 8 steps 3.4 %, 9: 1.9 %, 10: 1.1 %, 11 and more: < 0.6 %.
    """

    def __init__(
        self,
        steps: int = 18,
        sigma_max: float = 80.0,
        sigma_min: float = 0.02,
        order: int = 3,
        corrector: bool = True,
    ) -> None:
        if not 1 <= order <= 3:
            raise ValueError(f"Multistep has order 1, 2 or 3; got {order}")
        self.sigmas = log_grid(steps, sigma_max, sigma_min)
        t = -np.log(self.sigmas)
        before, last = (sigma**2 for sigma in self.sigmas[-2:])
        onward = last / (before - last)
        self.updates = [
            exponential_weights(t[max(0, n - order + 1) : n + 1], t[n], t[n + 1])
            for n in range(steps - 1)
        ]
        self.updates.append(Update(0.0, [-onward, 1 + onward]))
        if corrector:
            self.corrections = [
                exponential_weights(t[min(n, max(0, n - order + 2)) : n + 2], t[n], t[n + 1])
                for n in range(steps - 1)
            ]


def exponential_weights(nodes: NDArray[np.float64], start: float, end: float) -> Update:
    """e⁻ʰ and the weights w of ∫₀ʰ e^{−(h − u)} p(u) du = Σ w_j D_j for the polynomial p through
    D_j at t = `nodes`, where u = t − `start` and h = `end` − `start`; float64.

    From ∫₀ʰ e^{−(h − u)} uᵏ du = I_k, I₀ = 1 − e⁻ʰ and I_k = hᵏ − k I_{k−1}.
    """
    h, u = end - start, nodes - start
    moments = [-math.expm1(-h)]
    for k in range(1, len(u)):
        moments.append(h**k - k * moments[-1])
    weights = np.linalg.solve(np.vander(u, increasing=True).T, np.array(moments))
    return Update(math.exp(-h), [float(w) for w in weights])
