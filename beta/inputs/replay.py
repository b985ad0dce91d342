"""Traces to workloads: functions are mapped to models and each window is drawn anew.

A trace says how often functions ran (counts per minute, Azure 2019) or when (time stamps, Azure
2021). Per model and window a renewal process is fitted and drawn, so that rate and burstiness can
be scaled. AlpaServe §6.2; the process restarts in every window, so at a high cv more requests
appear than the rate says, as in the original.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from beta.inputs.arrays import Floats, Ints
from beta.inputs.arrivals import gamma
from beta.inputs.workload import Workload, merge
from common.errors import InputError

Mapping = Literal["stripe", "round_robin"]
Gaps = Literal["gamma", "exponential", "recorded"]
"""How a window's requests are drawn; `recorded`: not at all, the time stamps are taken."""
MINUTE = 60.0
MOST_OVER_COUNT = 5
"""A fitted rate above this multiple of count / window is not believed."""


class Counts(NamedTuple):
    """Invocations per function and minute of a slice: int array (functions, minutes)."""

    per_minute: Ints
    stand_in: bool = False
    """Whether it was made up here because no trace was given."""


class Stamps(NamedTuple):
    """Arrivals of each function, seconds since the slice began, ascending."""

    arrivals: tuple[Floats, ...]
    length_s: float
    stand_in: bool = False
    outside: int = 0
    """Rows of the file that are not in the slice."""


class Window(NamedTuple):
    """The process of one model in one window."""

    rate: float
    cv: float


class Replay(NamedTuple):
    """What a trace asks of each model."""

    windows: tuple[tuple[Window | None, ...], ...]
    """Per model: its windows, None where it is not asked for."""
    arrivals: tuple[Floats, ...]
    """Per model, seconds since the slice began, ascending."""

    unfitted: int = 0
    """Recorded requests of windows with too few, or equal, gaps to fit."""

    def workload(self) -> Workload:
        """Return all models' requests."""
        return merge(self.arrivals)


def owners(functions: int, models: int, mapping: Mapping = "stripe") -> Ints:
    """Return each function's model: in turn (`stripe`) or in blocks (`round_robin`)."""
    if functions < models:
        raise InputError(f"the slice has {functions} active functions for {models} models")
    index = np.arange(functions)
    return index % models if mapping == "stripe" else models * index // functions


def replay_counts(
    trace: Counts,
    models: int,
    *,
    rate_scale: float,
    cv_scale: float,
    window_s: float = MINUTE,
    mapping: Mapping = "stripe",
    cv_one: bool = False,
    seed: int = 0,
) -> Replay:
    """Return Gamma arrivals with each window's rate x `rate_scale`; the cv is `cv_scale` itself.

    With `cv_one` gaps are exponential.
    """
    minutes = round(window_s / MINUTE)
    if minutes < 1 or minutes * MINUTE != window_s:
        raise InputError(f"window_s is {window_s}: counts are per minute, so take a multiple of 60")
    active = trace.per_minute[trace.per_minute.any(axis=1)]
    owner = owners(len(active), models, mapping)
    padding = -active.shape[1] % minutes
    summed = np.zeros((models, active.shape[1]), np.int64)
    np.add.at(summed, owner, active)
    bins = np.pad(summed, ((0, 0), (0, padding))).reshape(models, -1, minutes).sum(axis=2)
    cv = 1.0 if cv_one else cv_scale
    windows = tuple(
        tuple(Window(count / window_s * rate_scale, cv) if count else None for count in row)
        for row in bins
    )
    return _draw(windows, window_s, seed)


def replay_stamps(
    trace: Stamps,
    models: int,
    *,
    rate_scale: float,
    cv_scale: float,
    window_s: float,
    mapping: Mapping = "stripe",
    cv_one: bool = False,
    seed: int = 0,
) -> Replay:
    """Return arrivals drawn from a fit to each window's gaps: rate and cv times their scales.

    With `cv_one` gaps are exponential.
    """
    active = [arrivals for arrivals in trace.arrivals if len(arrivals)]
    owner = owners(len(active), models, mapping)
    edges = np.arange(math.ceil(trace.length_s / window_s) + 1) * window_s
    windows, unfitted = [], 0
    for model in range(models):
        mine = np.sort(np.concatenate([active[i] for i in np.flatnonzero(owner == model)]))
        cuts = np.searchsorted(mine, edges)
        fits = [_fit(mine[low:high], window_s, cv_one=cv_one) for low, high in pairwise(cuts)]
        counts = np.diff(cuts)
        unfitted += sum(int(n) for n, fit in zip(counts, fits, strict=True) if fit is None)
        scale = 1.0 if cv_one else cv_scale
        windows.append(tuple(fit and Window(fit.rate * rate_scale, fit.cv * scale) for fit in fits))
    return _draw(tuple(windows), window_s, seed)._replace(unfitted=unfitted)


def raw_stamps(
    trace: Stamps, models: int, *, time_scale: float = 1, copies: int = 1, mapping: Mapping
) -> Replay:
    """Return the arrivals as they are, time divided by `time_scale`, each `copies` times."""
    active = [arrivals for arrivals in trace.arrivals if len(arrivals)]
    owner = owners(len(active), models, mapping)
    arrivals = tuple(
        np.repeat(np.sort(np.concatenate([active[i] for i in np.flatnonzero(owner == m)])), copies)
        / time_scale
        for m in range(models)
    )
    return Replay(((),) * models, arrivals)


def _fit(arrivals: Floats, window_s: float, *, cv_one: bool) -> Window | None:
    gaps = np.diff(arrivals) + 1e-6
    if len(gaps) < (1 if cv_one else 2):
        return None
    shape = 1.0 if cv_one else gamma_shape(gaps)
    if shape is None:
        return None
    rate, counted = float(1 / gaps.mean()), len(arrivals) / window_s
    return Window(counted if rate > MOST_OVER_COUNT * counted else rate, math.sqrt(1 / shape))


def _draw(windows: tuple[tuple[Window | None, ...], ...], window_s: float, seed: int) -> Replay:
    """Draw every window, models in order; the seed grows by one per window drawn."""
    arrivals = []
    for row in windows:
        parts = [np.empty(0)]
        for i, window in enumerate(row):
            if window is not None:
                rate, cv = window
                begins = i * window_s
                parts.append(gamma(rate=rate, cv=cv, duration=window_s, seed=seed, start=begins))
                seed += 1
        arrivals.append(np.concatenate(parts))
    return Replay(windows, tuple(arrivals))


def gamma_shape(gaps: Sequence[float] | Floats) -> float | None:
    """Return the most likely Gamma shape of positive gaps (location 0), None if they are equal.

    Solves log(k) - digamma(k) = log(mean) - mean(log) by Newton's method from Minka's start
    ("Estimating a Gamma distribution", 2002, eq. 5 and 10).
    """
    s = float(np.log(np.mean(gaps)) - np.mean(np.log(gaps)))
    if not s > 1e-12:
        return None
    shape = (3 - s + math.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    for _ in range(50):
        step = (math.log(shape) - _digamma(shape) - s) / (1 / shape - _trigamma(shape))
        shape -= step
        if abs(step) < 1e-14 * shape:
            break
    return shape


def _digamma(x: float) -> float:
    below = 0.0
    while x < 10:
        below, x = below - 1 / x, x + 1
    y = 1 / (x * x)
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132))))
    return below + math.log(x) - 0.5 / x - series


def _trigamma(x: float) -> float:
    below = 0.0
    while x < 10:
        below, x = below + 1 / (x * x), x + 1
    y = 1 / (x * x)
    series = y * (1 / 6 - y * (1 / 30 - y * (1 / 42 - y * (1 / 30 - y * 5 / 66))))
    return below + 1 / x + y / 2 + series / x
