"""The fused schedule's order of passes: actor and critic enter the pipeline from opposite ends.

Each model's passes fall into the other's fill and drain (RLHFuse's idea, Zhong et al., NSDI 2025).
The order is found by playing: each rank takes of what is ready what a rule prefers, with a bound on
micro-batches in flight. No single rule is best for all sizes, so all are played and the shortest
kept; memory stays within twice what 1F1B holds, or half a pipeline more at the ends.
"""

import heapq
from collections.abc import Callable
from functools import cache

from puzzle.plan.passes import ModelName, Pass

MODELS: tuple[ModelName, ...] = ("actor", "critic")
FORWARD, BACKWARD = 1.0, 2.0
"""Relative times that the order is found with."""

Rule = Callable[[int, Pass], tuple[float, ...]]
"""From a model's stage on the rank and a pass: the smaller, the sooner."""
Bound = Callable[[int, int], int]
"""From stages and a stage: most micro-batches of a model that wait for their backward pass."""

RULES: tuple[Rule, ...] = (
    lambda stage, item: (item.kind == "F", stage, item.batch),
    lambda stage, item: (item.kind == "F", item.batch, -stage),
    lambda stage, item: (item.kind == "F", item.batch, stage),
    lambda stage, item: (item.batch, item.kind == "F", stage),
)
BOUNDS: tuple[Bound, ...] = (
    lambda stages, stage: stages - stage,
    lambda stages, stage: stages - stage + stages // 2,
    lambda stages, stage: 2 * (stages - stage),
)


def most_live(stages: int, stage: int) -> int:
    """Return the most micro-batches of a model that any fused order holds on its stage."""
    return max(bound(stages, stage) for bound in BOUNDS)


@cache
def fused_programs(stages: int, batches: int, ratio: float = 1.0) -> tuple[tuple[Pass, ...], ...]:
    """Return every rank's passes: the shortest of all rules' and bounds'.

    `ratio` is the time of an actor's pass over the critic's.
    """
    players = [_Player(stages, batches, ratio, rule, bound) for rule in RULES for bound in BOUNDS]
    best = min(players, key=lambda player: player.play())
    return tuple(tuple(_with_updates(program, batches)) for program in best.programs)


def _with_updates(program: list[Pass], batches: int) -> list[Pass]:
    """Insert the updates: gradients are summed at once, both norms wait for the end."""
    made: list[Pass] = []
    for item in program:
        made.append(item)
        if item == Pass("B", item.model, batches - 1):
            made.append(Pass("R", item.model))
    ends = [Pass(kind, model) for kind in ("N", "U") for model in MODELS]
    return [*made, *ends]


class _Player:
    def __init__(self, stages: int, batches: int, ratio: float, rule: Rule, bound: Bound) -> None:
        self.stages, self.batches, self.rule, self.bound = stages, batches, rule, bound
        self.weight = {"actor": ratio, "critic": 1.0}
        self.programs: list[list[Pass]] = [[] for _ in range(stages)]
        self.ready: list[set[Pass]] = [set() for _ in range(stages)]
        self.flying = {(rank, model): 0 for rank in range(stages) for model in MODELS}
        self.busy = [False] * stages
        self.events: list[tuple[float, int, Pass]] = []
        self.ready[0].add(Pass("F", "actor", 0))
        self.ready[-1].add(Pass("F", "critic", 0))

    def play(self) -> float:
        """Return when the last pass ends."""
        now = 0.0
        for rank in range(self.stages):
            self.start(rank, now)
        while self.events:
            now, touched = self.events[0][0], set[int]()
            while self.events and self.events[0][0] == now:
                _, rank, item = heapq.heappop(self.events)
                touched |= {rank, self.finish(rank, item)}
            for rank in sorted(touched):
                self.start(rank, now)
        return now

    def stage(self, rank: int, model: ModelName) -> int:
        return rank if model == "actor" else self.stages - 1 - rank

    def start(self, rank: int, now: float) -> None:
        fit = [item for item in self.ready[rank] if self.allowed(rank, item)]
        if self.busy[rank] or not fit:
            return
        item = min(fit, key=lambda i: (self.rule(self.stage(rank, i.model), i), i))
        self.ready[rank].remove(item)
        self.busy[rank] = True
        self.programs[rank].append(item)
        self.flying[rank, item.model] += item.kind == "F"
        seconds = self.weight[item.model] * (FORWARD if item.kind == "F" else BACKWARD)
        heapq.heappush(self.events, (now + seconds, rank, item))

    def allowed(self, rank: int, item: Pass) -> bool:
        most = self.bound(self.stages, self.stage(rank, item.model))
        return item.kind == "B" or self.flying[rank, item.model] < most

    def finish(self, rank: int, item: Pass) -> int:
        """Make ready what waited for a pass; return the rank that it is on."""
        self.busy[rank] = False
        stage, onward = self.stage(rank, item.model), 1 if item.model == "actor" else -1
        if item.kind == "F":
            if stage == 0 and item.batch + 1 < self.batches:
                self.ready[rank].add(Pass("F", item.model, item.batch + 1))
            if stage == self.stages - 1:
                self.ready[rank].add(Pass("B", item.model, item.batch))
                return rank
            self.ready[rank + onward].add(item)
            return rank + onward
        self.flying[rank, item.model] -= 1
        if not stage:
            return rank
        self.ready[rank - onward].add(item)
        return rank - onward
