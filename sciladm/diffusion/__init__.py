"""Noise, denoiser and sampler: three nouns, three files."""
