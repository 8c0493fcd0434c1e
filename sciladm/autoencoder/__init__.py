"""Fields ⇄ latents: one file per kind of domain behind `base.Autoencoder`."""
