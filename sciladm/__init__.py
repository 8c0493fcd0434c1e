"""Latent diffusion for gridded scientific data."""
