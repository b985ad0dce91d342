"""1F1B with the vocabulary sharded over all ranks: `vocab-2`, `vocab-1` and `naive`.

Vocabulary Parallelism §4-5, Figures 9-11. They differ in the barriers between the last stage's
forward and backward pass (1, 2, 3); each one delays B by one interval, so every rank does one more
forward pass before its first backward pass.
"""

from vocab_parallel.plan.costs import Costs, check_size
from vocab_parallel.plan.passes import Kind, Pass, Schedule
from vocab_parallel.plan.states import RankState, rank_states

METHOD_OF_BARRIERS = {1: "vocab-2", 2: "vocab-1", 3: "naive"}

_FUSED: list[tuple[int, tuple[Kind, int]]] = [(1, ("T", 0)), (0, ("S", 0))]
_PARTS: dict[int, list[tuple[int, tuple[Kind, int]]]] = {
    1: _FUSED,
    2: _FUSED,
    3: [(2, ("T", 0)), (1, ("S", 1)), (0, ("S", 0))],
}
"""What one slot runs, in order: intervals since the micro-batch's first part, (kind, chunk)."""


def sharded(ranks: int, batches: int, barriers: int, costs: Costs | None = None) -> Schedule:
    """Return the schedule; rank r holds at most p - r + barriers micro-batches."""
    check_size(ranks, batches)
    states = rank_states(ranks, costs or Costs())
    programs = tuple(
        _Program(rank, states, batches=batches, barriers=barriers).write() for rank in range(ranks)
    )
    return Schedule(
        method=METHOD_OF_BARRIERS[barriers],
        ranks=ranks,
        batches=batches,
        barriers=barriers,
        programs=programs,
    )


class _Program:
    """One rank's list while it is written; `more` is the number of barriers beyond the first."""

    def __init__(
        self, rank: int, states: tuple[RankState, ...], *, batches: int, barriers: int
    ) -> None:
        ranks = len(states)
        self.state = states[rank]
        self.first_slots = states[0].warm_up_slots
        self.batches = batches
        self.more = barriers - 1
        self.warm_up = min(ranks - rank, batches)
        self.ahead = min(ranks, batches) - self.warm_up
        self.done: dict[Kind, int] = {"IF": 0, "IB": 0, "F": 0}
        self.parts = _PARTS[barriers]
        self.slots = 0
        self.passes: list[Pass] = []

    def write(self) -> tuple[Pass, ...]:
        """Return warm-up, the slots before the first B, the steady phase and the cool-down."""
        self.before_backward()
        for batch in range(self.batches):
            self.backward(batch)
        while self.done["IB"] < self.batches:
            self.next("IB")
        if self.more == 0:
            self.output()
        return tuple(self.passes)

    def before_backward(self) -> None:
        """Run the first F passes, and one more F per barrier between the first S/T slots."""
        for _ in range(self.ahead + 1):
            self.next("IF")
        for _ in range(self.warm_up):
            self.next("IF")
            self.next("F")
        for barrier in range(self.more + 1):
            self.output()
            if barrier < self.more:
                self.next("IF")
            self.next("F")
        for slot in range(1, self.state.warm_up_slots + 1):
            if self.slots_left:
                self.output()
                if slot >= self.first_slots:
                    self.next("IF")

    @property
    def slots_left(self) -> bool:
        """Whether another slot comes before the end; T of one barrier's last slot is left over."""
        return self.slots <= self.batches - 1 + self.more

    def backward(self, batch: int) -> None:
        """Run B, the slot of S and T, and the next F if any is left (else no IF either)."""
        steady = self.done["F"] < self.batches
        self.passes.append(Pass("B", batch))
        if self.state.after_backward or not steady:
            self.slot(steady=steady)
        if steady:
            self.next("F")
            if not self.state.after_backward:
                self.slot(steady=True)

    def slot(self, *, steady: bool) -> None:
        """Run what goes with one interval: T and S, then IF and IB where their turn has come."""
        number = self.slots
        if self.slots_left:
            self.output()
        if steady and number >= self.first_slots + self.more:
            self.next("IF")
        if number >= self.first_slots + 2 + self.more:
            self.next("IB")

    def output(self) -> None:
        """Run the output layer's last part of the oldest micro-batch, ..., the first of the newest.

        One interval lies between two parts of a micro-batch: that is what hides the barrier.
        """
        for lag, (kind, chunk) in self.parts:
            batch = self.slots - lag
            if 0 <= batch < self.batches:
                self.passes.append(Pass(kind, batch, chunk))
        self.slots += 1

    def next(self, kind: Kind) -> None:
        """Run the next pass of a kind that is only counted, if any is left."""
        batch = self.done[kind]
        if batch < self.batches:
            self.done[kind] += 1
            self.passes.append(Pass(kind, batch))
