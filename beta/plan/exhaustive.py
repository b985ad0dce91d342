"""Every placement there is, where those are so few that trying them takes a moment.

They are played by the simulator in plain Python, so nothing has to be compiled either.
"""

from collections.abc import Iterator
from itertools import combinations, islice

from beta.inputs.profile import Config
from beta.plan.placement import Group, Placement, packed, used_bytes
from beta.plan.problem import Problem, Scored
from beta.plan.search import profiled
from beta.simulate import readable
from beta.simulate.statistics import counted

MOST_PLAYED, MOST_PLACEMENTS = 300_000, 300
"""Requests that may be played for it in all, and placements."""


def every_placement(problem: Problem) -> list[Scored] | None:
    """Return all placements with what training says of them; None where they are too many."""
    most = min(MOST_PLAYED // max(len(problem.train), 1), MOST_PLACEMENTS)
    if len(problem.models) > most.bit_length():  # even one group's models are too many
        return None
    found = list(islice(_placements(problem), most + 1))
    return None if len(found) > most else [_played(problem, placement) for placement in found]


def _played(problem: Problem, placement: Placement) -> Scored:
    train, n = problem.train, len(problem.train)
    outcome = readable.simulate(train, placement, problem.models)
    counts = counted(train, outcome, models=len(problem.models), groups=len(placement.groups))
    return Scored(placement, int(outcome.good.sum()), counts.latency_s * n, n, 1, n)


def _placements(problem: Problem) -> Iterator[Placement]:
    """Yield the placement of nothing, then all others without empty groups, groups in any order.

    Their order breaks ties between equally busy replicas, so it matters.
    """
    devices, configs = problem.cluster.devices, sorted(profiled(problem))
    options = [c for c in configs if c.devices <= devices]
    yield Placement((Group(min(configs, key=lambda c: c.devices)),))
    filled = [group for config in options for group in _filled(problem, config)]
    yield from _grown(problem, filled, (), devices)


def _filled(problem: Problem, config: Config) -> Iterator[Group]:
    """Yield the ways to fill a group, at least one model in each."""
    for count in range(1, len(problem.models) + 1):
        for models in combinations(range(len(problem.models)), count):
            group = Group(config, models)
            if used_bytes(group, problem.models) <= problem.cluster.memory_bytes:
                yield group


def _grown(
    problem: Problem, options: list[Group], before: tuple[Group, ...], devices: int
) -> Iterator[Placement]:
    for group in options:
        placement = Placement((*before, group))
        if group.config.devices <= devices and packed(placement, problem.cluster) is not None:
            yield placement
            yield from _grown(problem, options, placement.groups, devices - group.config.devices)
