"""Made-up traces for use without Azure's: marked as stand-ins wherever they are shown.

Shapes and constants were calibrated against published points, not against the traces themselves:
the 2019 one meets the published curves of Fig 11 to about a point of attainment, the 2021 one is
good for the shape only.
"""

import numpy as np

from beta.inputs.replay import Counts, Stamps

HOUR_INVOCATIONS = 32_807_479
"""Invocations of the true 2019 trace in its first hour, and its busiest function's."""
BUSIEST = 5_374_848


def counts_2019(*, functions: int = 4000, minutes: int = 60) -> Counts:
    """Return a stand-in for the first hour of the 2019 trace.

    Log-normal popularity (sigma 3) capped at the true busiest function's share; per function a
    slow wave of amplitude up to 0.3, ten percent of noise per minute, Poisson counts.
    """
    random = np.random.RandomState(0)
    weights = np.exp(random.normal(0, 1, functions) * 3.0)
    weights = np.minimum(weights / weights.sum(), BUSIEST / HOUR_INVOCATIONS)
    weights /= weights.sum()
    minute = np.arange(minutes)
    rows = np.empty((functions, minutes), np.int64)
    for row, weight in zip(rows, weights, strict=True):
        phase, amplitude = random.uniform(0, 2 * np.pi), random.uniform(0, 0.3)
        wave = 1 + amplitude * np.sin(2 * np.pi * minute / minutes + phase)
        noise = np.exp(random.normal(0, 0.1, minutes))
        row[:] = random.poisson(weight * HOUR_INVOCATIONS / minutes * wave * noise)
    return Counts(rows, stand_in=True)


def stamps_2021(*, functions: int = 424, requests: int = 110_000) -> Stamps:
    """Return a rough stand-in for day 13 of the 2021 trace: bursts around random centres."""
    day = 86_400.0
    random = np.random.RandomState(0)
    weights = np.exp(random.normal(0, 1, functions) * 2.8)
    weights = np.minimum(weights / weights.sum(), 0.27)
    weights /= weights.sum()
    arrivals = []
    for weight in weights:
        count = max(2, int(weight * requests))
        centres = random.uniform(0, day, max(1, int(count**0.7)))
        times = random.choice(centres, count) + random.exponential(20, count)
        arrivals.append(np.sort(np.clip(times, 0, day - 1e-3)))
    return Stamps(tuple(arrivals), day, stand_in=True)
