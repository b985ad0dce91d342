"""The intra-stage walk: one chain of strategy vectors per layout (Metis §3; CS598 report §3).

This is the readable engine. `kernel.py` is its compiled twin; tests hold the two equal.

A chain starts at (dp, tp) = (devices, 1) for every stage; a move turns one stage's (dp, tp)
into (dp / 2, 2 tp). The policies differ in the stage they move:

* `metis`: least memory slack of the last plan that fitted; before there is one, largest dp.
* `stratified`: least slack of the last *first attempt* that overflowed, so the stage that
  overflows most is relieved first.
"""

from collections.abc import Iterator, Sequence
from math import isinf
from typing import NamedTuple

from metis.plan import cost
from metis.plan.balance import min_max_split, sub_layer_split
from metis.plan.memory import adjust, demand_and_capacity, in_flight, slacks
from metis.plan.problem import Policy, Problem
from metis.plan.stages import StageModel, StageOption

MAX_ATTEMPTS = 3
"""Layer splits tried per strategy vector in the original."""

Strategy = tuple[int, int]
"""(dp, tp) of one stage."""


class Partition(NamedTuple):
    """What became of one strategy vector."""

    split: tuple[int, ...] | None
    """Layer boundaries from 0; None when nothing fits."""
    attempts: int
    """Number of the attempt that fitted."""
    failed_checks: int
    memory_state: list[float] | None
    """Slack per stage of the fitting split, MB."""
    first_state: list[float] | None
    """Slack per stage of the first split, if that overflowed."""


class Survivor(NamedTuple):
    """One plan that fits, with its cost; `terms` is None when it cannot be costed."""

    strategies: tuple[Strategy, ...]
    split: tuple[int, ...]
    attempts: int
    steps: int
    """Search steps of the segment that ended here."""
    terms: cost.CostTerms | None
    options: tuple[StageOption, ...]


def _everything_fits(stage: int, first: int, end: int) -> bool:
    """Say yes: the split by time alone."""
    return True


class Chain:
    """The walk over one layout with one number of micro-batches."""

    def __init__(
        self, model: StageModel, groups: Sequence[int], batches: int, *, phantom: bool = False
    ) -> None:
        self.model = model
        self.problem: Problem = model.problem
        self.groups = tuple(groups)
        self.batches = batches
        self.phantom = phantom
        self.firsts = [sum(self.groups[:s]) for s in range(len(self.groups))]

    def survivors(self, policy: Policy) -> Iterator[Survivor]:
        """Yield every plan that fits, in walking order."""
        strategies = [(size, 1) for size in self.groups]
        memory_state: list[float] | None = None
        first_state: list[float] | None = None
        steps, moved = 0, False
        while True:
            if moved:
                steps += 1
                state = memory_state
                if policy == "stratified":
                    state = first_state or memory_state
                stage = self._stage_to_move(strategies, state)
                if stage is None:
                    return
                dp, tp = strategies[stage]
                strategies[stage] = (dp // 2, tp * 2)
            moved = True
            options = self._options(strategies)
            if options is None:
                continue
            partition = self._partition(options)
            steps += partition.failed_checks
            memory_state, first_state = partition.memory_state, partition.first_state
            if partition.split is None:
                continue
            yield Survivor(
                tuple(strategies),
                partition.split,
                partition.attempts,
                steps,
                self._cost(options, partition.split),
                tuple(options),
            )
            steps = 0
            if self.problem.switches.first_success_ends_chain and partition.attempts == 1:
                return

    @staticmethod
    def _stage_to_move(strategies: Sequence[Strategy], state: Sequence[float] | None) -> int | None:
        """Return the divisible stage with the least state (largest dp without one)."""
        movable = [s for s, (dp, _) in enumerate(strategies) if dp > 1 and dp % 2 == 0]
        if not movable:
            return None
        if state is None:
            return min(movable, key=lambda s: 1 / strategies[s][0])
        return min(movable, key=lambda s: state[s])

    def _options(self, strategies: Sequence[Strategy]) -> list[StageOption] | None:
        """Return every stage's option, or None if one strategy is invalid.

        Limits of all stages come first: the original looks no profile up for an invalid vector.
        """
        if not all(self.model.allows(dp, tp, self.batches) for dp, tp in strategies):
            return None
        options = list[StageOption]()
        for first, size, (dp, tp) in zip(self.firsts, self.groups, strategies, strict=True):
            option = self.model.option(first, size, dp, tp, self.batches)
            if option is None:
                return None
            options.append(option)
        return options

    def _partition(self, options: list[StageOption]) -> Partition:
        if self.problem.switches.lossy_balancer:
            return self._partition_as_original(options)
        return self._partition_exactly(options)

    def _partition_exactly(self, options: list[StageOption]) -> Partition:
        """Split by time alone; if that overflows, by time within memory."""
        stages, layers = len(options), self.problem.model.layers

        def time(s: int, first: int, end: int) -> float:
            return options[s].time[first, end]

        def fits(s: int, first: int, end: int) -> bool:
            demand, capacity = demand_and_capacity(
                options[s], first, end, in_flight(s, stages, self.batches)
            )
            return demand <= capacity

        empty = self.problem.switches.empty_stages
        split = min_max_split(layers, stages, time, _everything_fits, allow_empty=empty)
        assert split is not None, "more stages than layers"
        state = slacks(options, split, self.batches)
        if min(state) >= 0:
            return Partition(split, 1, 0, state, None)
        repaired = min_max_split(layers, stages, time, fits, allow_empty=empty)
        if repaired is None:
            return Partition(None, -1, 2, None, state)
        return Partition(repaired, 2, 1, slacks(options, repaired, self.batches), state)

    def _partition_as_original(self, options: list[StageOption]) -> Partition:
        """Up to three attempts of the sub-layer balancer, performance adjusted in between."""
        stages = len(options)
        performance = self._normalised(options)
        first_state: list[float] | None = None
        failed = 0
        for attempt in range(1, MAX_ATTEMPTS + 1):
            split = sub_layer_split(performance, self.model.layer_demand)
            pairs = [
                demand_and_capacity(
                    options[s], split[s], split[s + 1], in_flight(s, stages, self.batches)
                )
                for s in range(stages)
            ]
            state = [capacity - demand for demand, capacity in pairs]
            if min(state) >= 0 and self._acceptable(split):
                return Partition(split, attempt, failed, state, first_state)
            if attempt == 1:
                first_state = state
            failed += 1
            adjusted = adjust(performance, [c for _, c in pairs], [d for d, _ in pairs])
            if adjusted is None:
                break
            performance = adjusted
        return Partition(None, -1, failed, None, first_state)

    def _acceptable(self, split: Sequence[int]) -> bool:
        """Return whether empty stages are allowed or absent."""
        if self.problem.switches.empty_stages:
            return True
        return all(split[s] < split[s + 1] for s in range(len(split) - 1))

    @staticmethod
    def _normalised(options: Sequence[StageOption]) -> list[float]:
        total = 0.0
        for option in options:
            total += option.performance
        return [option.performance / total for option in options]

    def _cost(self, options: Sequence[StageOption], split: Sequence[int]) -> cost.CostTerms | None:
        """Return the cost terms; a phantom is costed on its first stage, as if it were the last."""
        counted = 1 if self.phantom else len(options)
        if not all(option.costable for option in options[:counted]):
            return None
        if isinf(options[counted - 1].sync_ms):
            return None
        return stage_cost(options[:counted], split, self.problem, self.batches)


def stage_cost(
    options: Sequence[StageOption], split: Sequence[int], problem: Problem, batches: int
) -> cost.CostTerms:
    """Return the cost terms of stages with known layer boundaries."""
    layers = problem.model.layers
    execution = [float(o.time[split[s], split[s + 1]]) for s, o in enumerate(options)]
    return cost.combine(
        batches=batches,
        execution=execution,
        sends=[
            pair_send_ms(options[s], options[s + 1], split[s + 1] == layers - 1)
            for s in range(len(options) - 1)
        ],
        sends_every_batch=not problem.switches.activations_in_elements,
        sync_ms=options[-1].sync_ms,
        updates=[
            cost.update_ms(
                o.optimizer_ms, tp=o.tp, layers=split[s + 1] - split[s], all_layers=layers
            )
            for s, o in enumerate(options)
        ],
        allreduces=[
            cost.allreduce_ms(
                float(o.parameters[split[s], split[s + 1]]),
                dp=o.dp,
                bandwidth=o.allreduce_bandwidth,
            )
            for s, o in enumerate(options)
        ],
        batch_generator_ms=options[0].batch_generator_ms,
    )


def pair_send_ms(sender: StageOption, receiver: StageOption, before_head: bool) -> float:
    """Return P_s between two neighbouring stages, over the slowest link that they cover."""
    amount = sender.send_before_head if before_head else sender.send_hidden
    if sender.node_span[0] == receiver.node_span[1]:
        bandwidth = min(sender.intra_bandwidth, receiver.intra_bandwidth)
    else:
        bandwidth = min(sender.inter_bandwidth, receiver.inter_bandwidth)
    return cost.send_ms(amount, bandwidth=bandwidth)
