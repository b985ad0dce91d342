"""Arrival processes: when requests come, seconds, ascending; bit-equal to the original's.

All draws are from numpy's legacy `RandomState(seed)`, as the published points need. Sums of gaps
run through `cumsum`, which adds one by one just as the original's loop does. AlpaServe §6.1.
"""

from collections.abc import Sequence

import numpy as np

from beta.inputs.arrays import Floats
from common.errors import InputError

MOST_DRAWN = 50
"""So many times the gaps expected (or 100,000) are drawn until a cv is refused."""
MOST_CHANGES = 2_000_000
"""States of a modulated process."""


def gamma(*, rate: float, cv: float, duration: float, seed: int, start: float = 0.0) -> Floats:
    """Return arrivals in [start, start + duration) whose gaps are Gamma distributed.

    `rate` in requests/s, `cv` the coefficient of variation of the gaps: shape 1/cv², mean 1/rate.
    """
    if not (rate > 0 and cv > 0):
        raise InputError(f"gamma arrivals need a positive rate and cv, not {rate} and {cv}")
    random = np.random.RandomState(seed)
    batch = max(int(rate * duration * 1.2), 1)
    end, now, parts, drawn = start + duration, start, [], 0
    while now < end:
        drawn += batch
        if drawn > MOST_DRAWN * max(batch, 100_000):
            raise InputError(
                f"gaps of cv {cv:g} are so uneven that {drawn:.3g} of them do not fill"
                f" {duration:g} s at {rate:g} requests/s on average; lower cv"
            )
        gaps = random.gamma(1 / cv**2, cv**2 / rate, size=batch)
        gaps[0] += now
        arrivals = np.cumsum(gaps)
        parts.append(arrivals)
        now = arrivals[-1]
    arrivals = np.concatenate(parts) if parts else np.empty(0)
    return arrivals[: np.searchsorted(arrivals, end)]


def poisson(*, rate: float, duration: float, seed: int, start: float = 0.0) -> Floats:
    """Return Poisson arrivals: Gamma with cv 1."""
    return gamma(rate=rate, cv=1, duration=duration, seed=seed, start=start)


def deterministic(*, rate: float, duration: float, start: float = 0.0) -> Floats:
    """Return `int(duration * rate)` arrivals, 1/rate apart, the first at `start`."""
    if not rate > 0:
        raise InputError(f"deterministic arrivals need a positive rate, not {rate}")
    ticks: Floats = np.arange(int(duration * rate), dtype=np.float64)
    return start + ticks * (1 / rate)


def modulated_poisson(
    *,
    state_s: Sequence[float],
    rates: Sequence[float],
    duration: float,
    seed: int,
    start: float = 0.0,
) -> Floats:
    """Return arrivals of a Poisson process whose rate jumps between states (UniformMMPP).

    A state lasts Exp(mean `state_s[i]`) seconds with `rates[i]` requests/s; the next state is any
    other, equally likely. There are `duration` x (mean rate) requests; the original's class misses
    a method and cannot be instantiated.
    """
    if len(state_s) != len(rates) or len(rates) < 2 or min(*rates, *state_s) <= 0:
        raise InputError("modulated arrivals need two or more states with positive seconds, rates")
    random = np.random.RandomState(seed)
    count = int(duration * np.dot(state_s, rates) / sum(state_s))
    arrivals: list[float] = []
    state, begins, changes = 0, start, 0
    while len(arrivals) < count:
        changes += 1
        if changes > MOST_CHANGES:
            raise InputError(
                f"modulated arrivals: {changes} states of {min(state_s):g} s and more bring"
                f" {len(arrivals)} of {count} requests at up to {max(rates):g} requests/s; give"
                " longer state_s or higher rates"
            )
        others = [other for other in range(len(rates)) if other != state]
        # With probabilities numpy takes one draw, also for a single alternative, as the original.
        following = int(random.choice(others, p=[1 / len(others)] * len(others)))
        ends = begins + random.exponential(state_s[state])
        now = begins + random.exponential(1 / rates[state])
        while now < ends and len(arrivals) < count:
            arrivals.append(now)
            now += random.exponential(1 / rates[state])
        state, begins = following, ends
    return np.array(arrivals)


def split_rate(
    total: float, count: int, distribution: str | Sequence[float] = "uniform", alpha: float = 0.5
) -> Floats:
    """Return each model's share of a total rate, requests/s.

    `uniform`; `power_law`: proportional to (i + 1)^-alpha; `triangle_decay`: weights 1, then 1/2
    twice, 1/4 four times, and so on; or explicit weights.
    """
    if isinstance(distribution, str):
        weights = {
            "uniform": lambda: np.ones(count),
            "power_law": lambda: np.arange(1, count + 1) ** -alpha,
            "triangle_decay": lambda: 0.5 ** np.floor(np.log2(np.arange(1, count + 1))),
        }
        if distribution not in weights:
            raise InputError(f"rate distribution {distribution!r}; expected one of {[*weights]}")
        shares = weights[distribution]()
    else:
        shares = np.asarray(distribution, dtype=float)
    if len(shares) != count or not np.all(shares >= 0) or not shares.sum() > 0:
        raise InputError(f"rate distribution needs {count} weights, none negative, not all zero")
    return shares / shares.sum() * total
