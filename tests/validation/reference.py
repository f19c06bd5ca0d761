"""The same noise drawn as whole gradient vectors, and taken apart by definition."""

from __future__ import annotations

import math

import numpy as np

from rl_scaling.validation.calibration_problems import Carried, FloatArray, NoiseTerms, Spectrum


def noise_vectors(
    rng: np.random.Generator, shape: tuple[int, int], groups: int, spectrum: Spectrum, carried: Carried
) -> FloatArray:
    """(repeats, measurements, groups, dimensions)."""
    scale = np.sqrt(np.repeat(spectrum.eigenvalues, spectrum.multiplicities))
    size = (shape[0], groups, len(scale))
    kept = rng.standard_normal(size)
    found = np.empty((shape[0], shape[1], groups, len(scale)))
    for t in range(shape[1]):
        if t:
            fresh = math.sqrt(1 - carried.autocorrelation**2)
            kept = carried.autocorrelation * kept + fresh * rng.standard_normal(size)
        found[:, t] = math.sqrt(carried.part) * kept + math.sqrt(1 - carried.part) * rng.standard_normal(size)
    return found * scale


def direction(spectrum: Spectrum) -> FloatArray:
    """(dimensions,) G / |G|, spread over the bins as the trace is, along one coordinate of each."""
    vector = np.zeros(sum(spectrum.multiplicities))
    starts = np.cumsum([0, *spectrum.multiplicities[:-1]])
    vector[starts] = np.sqrt(spectrum.parts)
    return vector


def terms_of(vectors: FloatArray, along: FloatArray) -> NoiseTerms:
    """By definition: the mean's component, products of pairs, scatter about the mean."""
    groups = vectors.shape[2]
    mean = vectors.mean(axis=2)
    products = np.einsum("rtid,rtjd->rtij", vectors, vectors)
    off_diagonal = products.sum(axis=(2, 3)) - np.trace(products, axis1=2, axis2=3)
    scatter = np.sum((vectors - mean[:, :, None]) ** 2, axis=(2, 3))
    return NoiseTerms(mean @ along, off_diagonal / (groups * (groups - 1)), scatter / (groups - 1))
