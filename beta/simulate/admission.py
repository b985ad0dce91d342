"""The two rules of the running system: who gets a request, and whether it is taken on.

The event simulator and the group managers of `run` call these same functions. AlpaServe §5.
"""

from beta.inputs.arrays import Floats, Ints
from common.kernels import compiled

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
def together(groups: Ints, outstanding: Ints, own: Ints, most: int) -> int:
    """Return the one of `groups` where a request is likeliest to join a batch of its model.

    That is the one with the most outstanding requests of its model (`own`, by group) of those that
    are at most a batch of `most` busier than the least busy one; the least busy of equal ones.
    NOBODY where there is no group.
    """
    least = least_outstanding(groups, outstanding)
    best = least
    for group in groups:
        if outstanding[group] - outstanding[least] < most and (
            own[group] > own[best]
            or (own[group] == own[best] and outstanding[group] < outstanding[best])
        ):
            best = group
    return best


@compiled
def book(clock: Floats, latency: Floats, now: float) -> float:
    """Book a request's way through the stages from `now` on; return its predicted end."""
    end = now
    for k in range(len(latency)):
        end = max(clock[k], end) + latency[k]
        clock[k] = end
    return end


@compiled
def book_all(clock: Floats, latency: Floats, rows: Ints, now: float) -> None:
    """Book the ways of requests that are all there `now`; `latency` has a row for each model."""
    for row in rows:
        book(clock, latency[row], now)


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
    return book(clock, latency, now)
