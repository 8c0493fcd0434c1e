"""Exact answers that several tests compare with."""

import math

import numpy as np
import torch


def gaussian_denoise(variance):
    """E[x₀ | x] for independent x₀ ~ N(0, variance), per mode."""
    return lambda x, sigma: x * (variance / (variance + sigma**2))


def two_peaks_denoise(x, sigma, share=0.3, variance=0.25):
    """E[x₀ | x] for x₀ ~ share · N(1, variance) + (1 − share) · N(−1, variance), per number."""
    total = variance + sigma**2
    right = torch.sigmoid(math.log(share / (1 - share)) + 2 * x / total)
    shrink = variance / total
    return right * (1 + (x - 1) * shrink) + (1 - right) * (-1 + (x + 1) * shrink)


def periodic_covariance(shape, scale, power=3.0):
    """Covariance (cells, cells) of an isotropic Gaussian field on a torus, unit variance."""
    k = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in shape), indexing="ij")
    spectrum = (scale**2 + sum(a**2 for a in k)) ** -power
    row = np.fft.ifftn(spectrum).real
    row /= row.flat[0]
    cells = np.indices(shape).reshape(len(shape), -1)
    apart = (cells[:, :, None] - cells[:, None, :]) % np.array(shape)[:, None, None]
    return row[tuple(apart)]
