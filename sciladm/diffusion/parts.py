"""Departures taken apart, so that each part is about few variables.

How far a frame may depart differs from variable to variable: in a storm the wind is far off, the
temperature near the ground is not. A latent channel holds a little of each, so no scale
of latent channels can say that; one of the parts can.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sciladm.nn.joint import joint_axes

LEAST = 1e-4
"""Smallest eigenvalue of a correlation: what is less is a constant, or rounding."""


class Parts(nn.Module):
    """δ = T d, one T for all cells; δ (batch, channel, *space) in units of what is usual in its
    cell. Parts d are uncorrelated, of variance 1, on average over cells; beyond that T is free to
    turn, and turns until each part decodes to as few variables as can be.

    counts: (part,), the standard deviation that a part has over all decoded variables, 1 on
    average: what its CRPS counts in training.
    """

    turn: Tensor
    back: Tensor
    counts: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("turn", torch.eye(channels))
        self.register_buffer("back", torch.eye(channels))
        self.register_buffer("counts", torch.ones(channels))

    def apart(self, departure: Tensor) -> Tensor:
        """δ → d."""
        return torch.einsum("pc,bc...->bp...", self.turn, departure)

    def joined(self, parts: Tensor) -> Tensor:
        """d → δ."""
        return torch.einsum("cp,bp...->bc...", self.back, parts)

    def weight(self, cells: Tensor) -> Tensor:
        """What each number counts (part, *space), given what each cell does (*space)."""
        counts: Tensor = self.counts.view(-1, *[1] * cells.ndim) * cells
        return counts

    def log_det(self) -> float:
        """ln |det T|, the volume that `joined` gives to a unit of d in one cell."""
        return float(torch.linalg.slogdet(self.back.double())[1])

    @torch.no_grad()
    def fit(
        self, departures: Iterable[Tensor], unit: Tensor, area: Tensor, decoded: Tensor
    ) -> None:
        """departures: batches of δ; unit (channel, *space): what they are in units of; area
        (*space): what a cell counts; decoded (variable, channel, channel): the variance that
        latents z have in each variable is that of zᵀ M z."""
        share = (area / area.sum()).flatten().double().cpu()
        products = torch.zeros_like(self.back, dtype=torch.float64, device="cpu")
        number = 0
        for batch in departures:
            rows = batch.flatten(2).double().cpu()
            products += torch.einsum("bin,n,bjn->ij", rows, share, rows)
            number += len(batch)
        values, vectors = torch.linalg.eigh(products / number)
        size = values.clamp(min=LEAST).sqrt()
        root, inverse = vectors * size @ vectors.T, vectors / size @ vectors.T
        usual = unit.flatten(1).double().cpu()
        together = torch.einsum("in,n,jn->ij", usual, share, usual)
        forms = root @ (decoded.double().cpu() * together) @ root
        whole = forms.diagonal(dim1=1, dim2=2).sum(1).clamp(min=1e-12)
        axes = torch.from_numpy(joint_axes((forms / whole[:, None, None]).numpy()))
        carried = torch.einsum("vij,ip,jp->p", forms, axes, axes).clamp(min=0).sqrt()
        self.turn.copy_(axes.T @ inverse)
        self.back.copy_(root @ axes)
        self.counts.copy_(carried / carried.mean())
