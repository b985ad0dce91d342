"""A workload: who asks for which model when, as two flat arrays sorted by time."""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from beta.inputs.arrays import Floats, Indices
from beta.inputs.arrivals import gamma
from beta.inputs.model import Model
from common.errors import InputError

UNKNOWN = -1
"""Model index of a request for a model that nobody registered."""


class Workload(msgspec.Struct, frozen=True):
    """Requests by arrival: `arrival[i]` seconds, `model[i]` the model's index (or UNKNOWN)."""

    arrival: Floats
    model: Indices

    def __post_init__(self) -> None:
        if self.arrival.shape != self.model.shape or self.arrival.ndim != 1:
            raise InputError("a workload needs one model index per arrival")
        if np.any(np.diff(self.arrival) < 0):
            raise InputError("a workload's arrivals must ascend")

    def __len__(self) -> int:
        return len(self.arrival)

    def __getitem__(self, part: slice) -> "Workload":
        return Workload(self.arrival[part], self.model[part])

    @property
    def rate(self) -> float:
        """Requests/s from the mean gap, as the original measures it; 0 below two requests."""
        gaps = np.diff(self.arrival)
        return float(1 / (gaps.mean() + 1e-6)) if len(gaps) else 0.0

    @property
    def cv(self) -> float:
        """Standard deviation of the gaps times the rate; 0 below two requests."""
        return float(np.diff(self.arrival).std() * self.rate) if len(self) > 1 else 0.0

    def between(self, start: float, end: float) -> "Workload":
        """Return the requests that arrive in [start, end)."""
        low, high = np.searchsorted(self.arrival, [start, end])
        return self[low:high]

    def windows(self, seconds: float) -> list["Workload"]:
        """Return pieces, each from its first arrival to the last at most `seconds` later.

        The next piece starts with the next arrival, so pieces drift, as in the original.
        """
        if not seconds > 0:
            raise InputError(f"windows of {seconds} s: must be positive")
        pieces, low = [], 0
        while low < len(self):
            high = int(np.searchsorted(self.arrival, self.arrival[low] + seconds, side="right"))
            pieces.append(self[low:high])
            low = high
        return pieces

    def counts(self, models: int) -> Indices:
        """Return the number of requests of each model."""
        return np.bincount(self.model[self.model >= 0], minlength=models).astype(np.int32)


def merge(arrivals: Iterable[Floats], models: Sequence[int] | None = None) -> Workload:
    """Return the requests of all models; the i-th array is of model i, or `models[i]`.

    Equal times keep the order of the models.
    """
    parts = [np.asarray(part, dtype=np.float64) for part in arrivals]
    if not parts:
        return Workload(np.empty(0), np.empty(0, np.int32))
    index = range(len(parts)) if models is None else models
    owner = np.repeat(np.array(list(index), np.int32), [len(part) for part in parts])
    arrival = np.concatenate(parts)
    order = np.argsort(arrival, kind="stable")
    return Workload(arrival[order], owner[order])


def gamma_workload(models: Sequence[Model], *, duration: float, seed: int = 0) -> Workload:
    """Return Gamma arrivals of every model at its rate and cv; model i draws from seed + i."""
    return merge(
        [
            gamma(rate=model.rate, cv=model.cv, duration=duration, seed=seed + i)
            if model.rate > 0
            else np.empty(0)
            for i, model in enumerate(models)
        ]
    )


def training_workload(models: Sequence[Model], seed: int = 0) -> Workload:
    """Return what policies train on where no trace is given: about 30000 requests.

    Gamma arrivals for max(100, 30000 / total rate) seconds; model i draws from seed + i.
    """
    total = sum(model.rate for model in models)
    if not total > 0:
        raise InputError("a training workload needs models with a positive rate")
    return gamma_workload(models, duration=max(100, 30000 / total), seed=seed)
