"""What every autoencoder offers."""

from typing import Protocol

from torch import Tensor


class Autoencoder(Protocol):
    """Fields in normalised anomalies (batch, channel, *space) ⇄ latents (batch, latent, *cells).

    `statics`: (static, *space), standardised. Both directions are deterministic.
    """

    def encode(self, x: Tensor, statics: Tensor) -> Tensor:
        """Fields → latents of unit variance per channel."""
        ...

    def decode(self, z: Tensor, statics: Tensor) -> Tensor:
        """Latents → fields."""
        ...
