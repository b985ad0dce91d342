"""Attainment, latency and rates from what became of each request.

*Goodput* is the paper's word for SLO attainment: the share of requests answered in time.
"""

import math
from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Floats, Ints
from beta.inputs.workload import Workload
from beta.simulate.fast import Outcome

WARM_UP_S = 10.0
"""Seconds whose share of the requests is left out at both ends."""


class Counted(NamedTuple):
    """Statistics over all requests: what searches score placements by."""

    goodput: float
    latency_s: float
    """Mean over all requests; a refused one counts 0, as in the original's score."""
    model_requests: Ints
    model_good: Ints
    group_requests: Ints
    """Also those that the group refused."""

    @property
    def model_goodput(self) -> Floats:
        """Per model, with the original's term against division by zero."""
        return self.model_good / (self.model_requests + 1e-6)


class ModelStatistics(NamedTuple):
    """One model; throughput and latencies are over its requests answered in time."""

    model: int
    requests: int
    goodput: float
    throughput: float
    """Requests/s."""
    latency_s: float
    latency_std_s: float
    p90_s: float
    p99_s: float


class Statistics(NamedTuple):
    """Statistics without warm-up and cool-down."""

    requests: int
    goodput: float
    latency_s: float
    """Mean over requests answered in time; 0 if there is none."""
    latency_with_refused_s: float
    """Mean over all requests with 0 for a refused one, as the original reports."""
    p99_s: float
    """Of requests answered in time."""
    request_rate: float
    models: tuple[ModelStatistics, ...]
    """By number of requests, ascending; equal ones in order of first appearance."""


def counted(workload: Workload, outcome: Outcome, *, models: int, groups: int) -> Counted:
    """Return the untrimmed statistics; requests for unknown models count in the means only."""
    known = workload.model >= 0
    asked = outcome.group[outcome.group >= 0]
    n = max(len(workload), 1)
    return Counted(
        float(outcome.good.sum() / n),
        float((outcome.finish - workload.arrival).sum() / n),
        np.bincount(workload.model[known], minlength=models).astype(np.int64),
        np.bincount(workload.model[outcome.good], minlength=models).astype(np.int64),
        np.bincount(asked, minlength=groups).astype(np.int64),
    )


def trimmed(workload: Workload, outcome: Outcome, *, warm_up_s: float = WARM_UP_S) -> Statistics:
    """Return statistics without the first and last requests.

    As many requests are left out at either end as come in `warm_up_s` on average (a number, not a
    time, as in the original). A workload too short for that is taken whole.
    """
    n = len(workload)
    length = float(workload.arrival[-1] - workload.arrival[0]) if n > 1 else 0.0
    skip = int(warm_up_s / length * n) if length > 0 else 0
    kept = slice(skip, n - skip) if 2 * skip < n else slice(0, n)
    arrival, model = workload.arrival[kept], workload.model[kept]
    latency, good = outcome.finish[kept] - arrival, outcome.good[kept]
    served = np.sort(latency[good])
    return Statistics(
        len(arrival),
        float(good.mean()) if len(arrival) else 0.0,
        float(served.mean()) if len(served) else 0.0,
        float(latency.mean()) if len(arrival) else 0.0,
        _at(served, 0.99),
        _per_second(arrival),
        _models(arrival, model, latency, good.astype(np.bool_)),
    )


def _models(
    arrival: Floats, model: np.ndarray, latency: Floats, good: np.ndarray
) -> tuple[ModelStatistics, ...]:
    rows = list[ModelStatistics]()
    if not len(arrival):
        return ()
    order = np.argsort(model, kind="stable")
    names, starts = np.unique(model[order], return_index=True)
    first_seen = dict(zip(names.tolist(), order[starts].tolist(), strict=True))
    for name, mine in zip(names.tolist(), np.split(order, starts[1:]), strict=True):
        in_time = mine[good[mine]]
        served = np.sort(latency[in_time])
        some = len(served) > 0
        rows.append(
            ModelStatistics(
                name,
                len(mine),
                float(good[mine].mean()),
                _per_second(arrival[in_time]),
                float(served.mean()) if some else 0.0,
                float(served.std()) if some else 0.0,
                _at(served, 0.9),
                _at(served, 0.99),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.requests, first_seen[row.model])))


def _at(ascending: Floats, share: float) -> float:
    return float(ascending[int(share * len(ascending))]) if len(ascending) else 0.0


def _per_second(arrival: Floats) -> float:
    length = float(arrival[-1] - arrival[0]) if len(arrival) > 1 else 0.0
    return len(arrival) / length if length > 0 and math.isfinite(length) else 0.0
