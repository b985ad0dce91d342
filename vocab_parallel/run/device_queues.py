"""Are there enough queues on a GPU for the streams that must not wait for each other?

A stream is put into one of CUDA_DEVICE_MAX_CONNECTIONS queues of the device (8 unless it is set, 32
at most; CUDA C++ Programming Guide, environment variables). Streams that share one may wait for
each other without need. Receives and broadcasts are posted before they are needed, so with too few
queues they stand before the very passes that other ranks wait for: `plan.queues` finds that every
method stalls with one queue.
"""

from __future__ import annotations

import os
from collections import Counter

from common.errors import InputError
from vocab_parallel.plan.messages import ways
from vocab_parallel.plan.passes import Schedule

VARIABLE = "CUDA_DEVICE_MAX_CONNECTIONS"
MOST = 32
"""The largest value that has an effect."""
_OWN = 3
"""Streams beside those of `run.links.Groups`: passes, statistics, and the world's communicator."""


def communicators(schedule: Schedule, replicas: int = 1, tensor: int = 1) -> int:
    """Return how many communicators a rank has at most, beside the world's."""
    ends = (0, schedule.ranks - 1)  # which have a group of their own
    messages = Counter(rank for way in ways(schedule) for rank in way)
    most = max(messages[rank] + (rank in ends) for rank in range(schedule.ranks))
    return 1 + most + (tensor > 1) + (replicas > 1)


def open_device_queues(schedule: Schedule, replicas: int = 1, tensor: int = 1) -> None:
    """Set the variable where it is not set, before CUDA is begun.

    Raises `InputError` where it is set to fewer queues than a rank has streams, as Megatron's
    users often set 1.
    """
    needed = communicators(schedule, replicas, tensor) + _OWN
    given = os.environ.setdefault(VARIABLE, str(MOST))
    if not given.isdecimal() or int(given) < needed:
        raise InputError(
            f"{VARIABLE} is {given!r}, but a rank has {needed} streams, which in fewer queues would"
            f" keep each other waiting, for ever if it is 1; unset it, or set it to {MOST}"
        )
