"""What is asked of the service: as much as it takes, or queries that arrive at their own times."""

from collections.abc import Sequence

import msgspec

from helix.inputs.requests import Arrival
from helix.inputs.workload import WorkloadSettings

STAGGER_S = 0.1  # between first queries, and between an answer and the query it makes room for


class Offline(msgspec.Struct, frozen=True, kw_only=True):
    """Queries are always waiting: `initial` are sent, then each time there is room one more.

    Room is judged by the max-flow scheduler's KV expectation; the others keep their number of
    queries constant. Lengths are drawn from the recorded ones.
    """

    initial: int
    feed: float = 0.8  # expected KV use up to which the max-flow scheduler takes one more
    warm_up_s: float = 60.0
    duration_s: float = 600.0


class Online(msgspec.Struct, frozen=True, kw_only=True):
    """Queries arrive at given times and are all served; those late for the window do not count."""

    arrivals: Sequence[Arrival]
    duration_s: float = 1800.0


Workload = Offline | Online


def warm_up_s(workload: Workload) -> float:
    """Return how long the service runs before the window that counts begins."""
    return workload.warm_up_s if isinstance(workload, Offline) else 0.0


def waiting(settings: WorkloadSettings) -> Offline:
    """Return the workload that the search judges by: as many requests as there is room for."""
    initial = settings.initial
    many = initial if isinstance(initial, int) else sum(initial.values())
    if settings.mode == "online":
        return Offline(initial=many)
    return Offline(initial=many, warm_up_s=settings.warm_up_s, duration_s=settings.duration_s)
