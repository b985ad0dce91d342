"""The two rules of the running system: who gets a request, and whether it is taken on.

The event simulator and the group managers of `run` call these same functions. AlpaServe §5.
"""

from beta.arrays import Floats, Ints
from beta.compiled import compiled

NOBODY = -1


@compiled
def least_outstanding(groups: Ints, outstanding: Ints) -> int:
    """Return the one of `groups` with the fewest outstanding requests, the first of equal ones.

    NOBODY where there is no group.
    """
    best = NOBODY
    for group in groups:
        if best == NOBODY or outstanding[group] < outstanding[best]:
            best = group
    return best


@compiled
def admit(clock: Floats, latency: Floats, now: float, latest: float) -> float:
    """Book a request's way through the stages if it ends by `latest`; return its predicted end.

    `clock` is when each stage is thought to get free, `latency` the seconds in each of the
    pipeline's stages. Refused: minus 1, and nothing is booked.
    """
    end = now
    for k in range(len(latency)):
        end = max(clock[k], end) + latency[k]
    if end > latest:
        return -1.0
    end = now
    for k in range(len(latency)):
        end = max(clock[k], end) + latency[k]
        clock[k] = end
    return end
