"""Re-planning on a drifting trace, causally and with swaps paid for (not in the paper).

Clockwork++ knows a window's requests before they come and swaps models at no cost. Here each
window is placed by the requests of the one before, groups whose models change first load what they
lack, and a placement changes only if the last window says that it is worth it.
"""

from itertools import pairwise

from beta.inputs.model import Model
from beta.plan.placement import Group, Placement, Timetable
from beta.plan.problem import Problem, score
from beta.plan.search import search
from common.errors import InputError

WORTH = 0.005
"""Gain in attainment on the last window for which models are swapped."""


def replan(problem: Problem, window_s: float) -> Timetable:
    """Return `mp-search` anew for every window that the last window makes worth it: `mp-replan-N`.

    The first window is placed by its own requests, as if the system had been running before.
    """
    windows = problem.train.windows(window_s)
    if not windows:
        raise InputError("mp-replan: the training workload has no request")
    current = search(problem._replace(train=windows[0])).placement
    starts, placements = [0.0], [current]
    for last, window in pairwise(windows):
        seen = problem._replace(train=last)
        found = search(seen)
        if found.score > score(seen, current).score + WORTH:
            current = aligned(current, found.placement, problem.models)
            starts.append(float(window.arrival[0]))
            placements.append(current)
    return Timetable(tuple(starts), tuple(placements), problem.load_bytes_s)


def aligned(before: Placement, after: Placement, models: tuple[Model, ...]) -> Placement:
    """Return `after` with its groups where they find most of their weights, if configs agree."""
    if sorted(g.config for g in before.groups) != sorted(g.config for g in after.groups):
        return after
    left, placed = list(after.groups), list[Group]()
    for old in before.groups:
        same = [group for group in left if group.config == old.config]
        best = max(same, key=lambda group: shared_bytes(old, group, models))
        left.remove(best)
        placed.append(best)
    return Placement(tuple(placed))


def shared_bytes(old: Group, new: Group, models: tuple[Model, ...]) -> float:
    """Return the weights per device that a group keeps when it changes."""
    if old.config != new.config:
        return 0.0
    kept = set(old.models) & set(new.models)
    return sum(models[m].profile.memory_bytes(new.config) for m in kept)
