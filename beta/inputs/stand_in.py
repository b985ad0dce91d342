"""Made-up traces for use without Azure's: marked as stand-ins wherever they are shown.

Shapes and constants were calibrated against published points, not against the traces themselves:
the 2019 one meets the published curves of Fig 11 to about a point of attainment, the 2021 one is
good for the shape only.
"""

import numpy as np

from beta.inputs.arrays import Ints
from beta.inputs.replay import Counts, Stamps
from common.errors import InputError

HOUR_INVOCATIONS = 32_807_479
"""Invocations of the true 2019 trace in its first hour, and its busiest function's."""
BUSIEST = 5_374_848


HOUR = 60
DAY_MINUTES = 24 * HOUR
DRIFT = 0.5
"""Assumed: how much popularity of later hours strays from the first one's (sigma of its log)."""


def counts_2019(start: int = 0, end: int = HOUR, *, functions: int = 4000) -> Counts:
    """Return a stand-in for minutes `start` to `end` of the 2019 trace.

    Log-normal popularity (sigma 3) capped at the true busiest function's share; per function a
    slow wave of amplitude up to 0.3, ten percent of noise per minute, Poisson counts. The first
    hour is the calibrated one; in later ones popularity drifts, by an assumed amount.
    """
    hours = range(start // HOUR, (end - 1) // HOUR + 1)
    counts = np.concatenate([_hour(hour, functions) for hour in hours], axis=1)
    return Counts(counts[:, start - hours[0] * HOUR : end - hours[0] * HOUR], stand_in=True)


def _hour(hour: int, functions: int) -> Ints:
    random = np.random.RandomState(0)
    weights = np.exp(random.normal(0, 1, functions) * 3.0)
    weights = np.minimum(weights / weights.sum(), BUSIEST / HOUR_INVOCATIONS)
    if hour:
        random = np.random.RandomState(hour)
        weights *= np.exp(random.normal(0, DRIFT, functions))
    weights /= weights.sum()
    minute = np.arange(HOUR)
    rows = np.empty((functions, HOUR), np.int64)
    for row, weight in zip(rows, weights, strict=True):
        phase, amplitude = random.uniform(0, 2 * np.pi), random.uniform(0, 0.3)
        wave = 1 + amplitude * np.sin(2 * np.pi * minute / HOUR + phase)
        noise = np.exp(random.normal(0, 0.1, HOUR))
        row[:] = random.poisson(weight * HOUR_INVOCATIONS / HOUR * wave * noise)
    return rows


def stamps_2021(
    start: int = 0, end: int = DAY_MINUTES, *, functions: int = 424, requests: int = 110_000
) -> Stamps:
    """Return a rough stand-in for minutes `start` to `end` of one day of the 2021 trace.

    Bursts around random centres. It is made for day 13; on every other day it is the same.
    """
    day, first = 60.0 * DAY_MINUTES, 60.0 * (start % DAY_MINUTES)
    last = first + 60.0 * (end - start)
    if last > day:
        raise InputError("without a file, the 2021 trace is a stand-in of one day: stay within one")
    random = np.random.RandomState(0)
    weights = np.exp(random.normal(0, 1, functions) * 2.8)
    weights = np.minimum(weights / weights.sum(), 0.27)
    weights /= weights.sum()
    arrivals = []
    for weight in weights:
        count = max(2, int(weight * requests))
        centres = random.uniform(0, day, max(1, int(count**0.7)))
        times = random.choice(centres, count) + random.exponential(20, count)
        times = np.sort(np.clip(times, 0, day - 1e-3))
        arrivals.append(times[(first <= times) & (times < last)] - first)
    return Stamps(tuple(arrivals), last - first, stand_in=True)
