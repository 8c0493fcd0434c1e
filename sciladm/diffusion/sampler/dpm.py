"""DPM-Solver++(2M), as an ordinary and as a stochastic equation."""

import math

from sciladm.diffusion.sampler.base import Linear, Update, log_grid


class DpmSolver(Linear):
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2); `steps` evaluations.

    With h = ln(σ/σ′), the step before h₋ and D₋ the evaluation before D,

        x′ = e⁻ʰ x + (1 − e⁻ʰ) D̃,    D̃ = D + h/(2h₋) (D − D₋).

    Order 2. It differs from `Multistep` of order 2 by O(h³): D̃ is D at the middle of the step,
    whatever the weight e⁻ᵘ says. Uniform in ln σ; the first step and the last one, to D(σ_min),
    are of order 1.
    """

    noisy = False

    def __init__(self, steps: int = 40, sigma_max: float = 80.0, sigma_min: float = 0.002) -> None:
        self.sigmas = log_grid(steps, sigma_max, sigma_min)
        h = math.log(sigma_max / sigma_min) / (steps - 1)
        decay = math.exp(-2 * h if self.noisy else -h)
        first, usual = [1 - decay], [-(1 - decay) / 2, 1.5 * (1 - decay)]
        variance = 1 - decay if self.noisy else 0.0
        self.updates = [
            Update(decay, usual if n else first, after * math.sqrt(variance))
            for n, after in enumerate(self.sigmas[1:])
        ]
        self.updates.append(Update(0.0, [1.0]))


class DpmSolverSde(DpmSolver):
    """SDE-DPM-Solver++(2M) (arXiv:2211.01095, appendix B.5): the reverse diffusion

        x′ = e⁻²ʰ x + (1 − e⁻²ʰ) D̃ + σ′ √(1 − e⁻²ʰ) n.

    Of order 2 in the variance. D is a martingale of the reverse diffusion, so D alone gives the
    mean of a step; what it misses is the spread of x₀ given x, (1 − e⁻²ʰ)² var(x₀ | x). The noise
    in D − D₋, which x remembers, makes up for it.
    """

    noisy = True
