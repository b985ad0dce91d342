"""When every F, B and W of V-Half starts, and between them the passes of the vocabulary layers.

A sweep over the fixed orders: a pass starts when its rank is free and its input is there. The
vocabulary passes follow the last stage, which the V puts on rank 0. Where a small m or uneven
costs would let rank 0 overtake a collective, its pass waits for it (the original deadlocks there).
"""

import msgspec

from vocab_parallel.plan.costs import Costs
from vocab_parallel.plan.passes import Pass, Schedule


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """Start times, in the costs' unit.

    `starts` per rank, in the order of its program; the others per micro-batch, equal on all ranks.
    """

    starts: tuple[tuple[float, ...], ...]
    inputs: tuple[float, ...]
    outputs: tuple[float, ...]
    output_gradients: tuple[float, ...]
    input_gradients: tuple[float, ...]


def clock(schedule: Schedule, costs: Costs) -> Clock:
    """Return the start times of a V-Half schedule that still lacks the vocabulary passes."""
    sweep = _Sweep(schedule, costs)
    sweep.run()
    batches = range(schedule.batches)
    return Clock(
        starts=tuple(map(tuple, sweep.starts)),
        inputs=tuple(sweep.input_time(batch) for batch in batches),
        outputs=tuple(sweep.output_time(batch) for batch in batches),
        output_gradients=tuple(sweep.output_gradient_time(batch) for batch in batches),
        input_gradients=tuple(sweep.input_gradient_times()),
    )


class _Sweep:
    """`window` is how many micro-batches the inputs run ahead of the last stage."""

    def __init__(self, schedule: Schedule, costs: Costs) -> None:
        self.schedule = schedule
        half = costs.backward / 2
        self.cost = {"F": costs.forward, "B": half, "W": half}
        self.window = schedule.ranks // 2 + 1
        self.ends: dict[tuple[int, Pass], float] = {}
        self.starts: list[list[float]] = [[] for _ in schedule.programs]
        self.free = [0.0] * schedule.ranks

    def run(self) -> None:
        """Advance every rank as far as its inputs allow until all programs are through."""
        moved = True
        while moved:
            moved = False
            for rank, program in enumerate(self.schedule.programs):
                while len(self.starts[rank]) < len(program) and self.step(rank):
                    moved = True
        assert all(map(len, self.schedule.programs)), "every rank has passes"

    def step(self, rank: int) -> bool:
        """Start a rank's next pass if its input is known; say whether it was."""
        item = self.schedule.programs[rank][len(self.starts[rank])]
        arrival = self.arrival(rank, item)
        if arrival is None:
            return False
        start = self.behind_collective(rank, item, max(self.free[rank], arrival))
        self.starts[rank].append(start)
        self.free[rank] = self.ends[rank, item] = start + self.cost[item.kind]
        return True

    def arrival(self, rank: int, item: Pass) -> float | None:
        """Return the end of the neighbouring stage's pass; None while it is not known."""
        stage = self.schedule.stage(rank, item.chunk) + {"F": -1, "B": 1, "W": 0}[item.kind]
        if item.kind == "W" or not 0 <= stage < self.schedule.stages:
            return 0.0
        source, chunk = self.schedule.place(stage)
        return self.ends.get((source, Pass(item.kind, item.batch, chunk)))

    def behind_collective(self, rank: int, item: Pass, start: float) -> float:
        """Return the start, put off where it does not come after the collective it needs."""
        if rank or item.kind == "W" or (item.kind == "B") != (item.chunk == 1):
            return start
        if item.kind == "F":
            needed = self.input_time(item.batch)
        elif self.schedule.barriers == 1:
            needed = self.output_time(item.batch)
        else:
            needed = self.output_gradient_time(item.batch)
        return start if start > needed else needed + self.cost["F"]

    def output_time(self, batch: int) -> float:
        """Return when S runs: one B after the last stage's F, so that the broadcast is hidden."""
        return self.ends[0, Pass("F", batch, 1)] + self.cost["B"]

    def output_gradient_time(self, batch: int) -> float:
        """Return when T runs: with the next micro-batch's S."""
        if batch + 1 < self.schedule.batches:
            return self.output_time(batch + 1)
        return self.output_time(batch) + 2 * (self.cost["B"] + self.cost["F"])

    def input_time(self, batch: int) -> float:
        """Return when IF runs: the first ones before everything, then one per S."""
        return self.output_time(batch - self.window) if batch >= self.window else -1.0

    def input_gradient_times(self) -> list[float]:
        """Return when IB runs: with an S two intervals later, at the very end for the last ones."""
        end, times = max(self.free), list[float]()
        for batch in range(self.schedule.batches):
            later = batch + self.window + 2
            time = self.output_time(later) if later < self.schedule.batches else end
            times.append(max(time, self.ends[0, Pass("B", batch, 0)], *times[-1:]))
        return times
