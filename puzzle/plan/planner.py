"""The planner: the plan with the shortest predicted step that fits into memory.

Searched are layouts of both sides x micro-batches of training, scoring, prefill and decoding x
schedules x mappings x recomputation and sharded optimizers, best bound first: a pair of layouts
waits under the shortest times of its sides, without the switch; a fused order under its fullest
rank's passes. What comes to the top is made exact and put back, so the first exact plan on top is
the shortest of all, which no plan below can beat. What `given`, `base`, `generation` and `released`
(with its faults mended) would answer is in the race too, so the answer is never longer than theirs.
"""

import heapq
from itertools import count
from typing import NamedTuple

import msgspec

from common.errors import InputError
from puzzle.inputs.cluster import GIB
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.savings import Savings
from puzzle.inputs.workload import Workload
from puzzle.plan.mappings import MappingName, possible
from puzzle.plan.plans import Plan, make_plan, switch_of
from puzzle.plan.refusal import refusal
from puzzle.plan.space import Cut, Learning, Making, learnings, makings, most_devices
from puzzle.simulate.learning import Training, training
from puzzle.simulate.predict import Predicted, held_beside, predict, switched
from puzzle.simulate.rates import rates_for

SHOWN = 8
FUSED_WORK = 100_000
"""Stages x micro-batches of all fused orders that a search plays (about half a minute)."""


_MAPPINGS: tuple[MappingName, ...] = ("overlap", "interleaved", "original")


class Candidate(NamedTuple):
    """A whole plan with its prediction."""

    plan: Plan
    predicted: Predicted


class Found(NamedTuple):
    """What a search found."""

    best: tuple[Candidate, ...]
    """The shortest step first, one for each pair of layouts and schedule."""
    least: float
    """Seconds that no plan of the space is below: the best one's, unless orders were not played."""
    unplayed: int
    """Fused orders that were not played because of `FUSED_WORK`, though they might be shorter."""


def search(experiment: Experiment) -> Found:
    """Return the best plans; refuses an experiment where nothing fits.

    Where no layout has as many ranks as there are devices, as many as possible are used.
    """
    found = _Search(experiment, SHOWN).run()
    if not found.best:
        raise InputError(refusal(experiment, lambda asked: bool(_Search(asked, 1).run().best)))
    return found


def named(experiment: Experiment) -> list[Candidate]:
    """Return what the methods that do not search answer, where they can and it fits.

    Of `released` its choice, with the critic's update and in buckets: without, it does less.
    """
    made: list[Candidate] = []
    given = experiment.choice
    mended = msgspec.structs.replace(
        given, mapping="original", schedule="merged", inference="sequential"
    )
    asked = (("given", given), ("base", given), ("generation", given), ("given", mended))
    for method, choice in asked:
        try:
            plan = make_plan(experiment, method, choice)
        except InputError:
            continue  # what cannot be is no answer
        plan = msgspec.structs.replace(plan, method="auto")
        candidate = Candidate(plan, predict(plan, experiment.machines))
        if candidate.predicted.memory.peak <= experiment.machines.memory_gib * GIB:
            made.append(candidate)
    return made


class _Pair(NamedTuple):
    """Both sides of a plan, under the shortest times of each, without the switch."""

    learn: Learning
    make: Making


class _Order(NamedTuple):
    """A fused order that is not played yet, with the choice and the generation side that fit."""

    choice: Choice
    beside: float
    cut: Cut
    make: Cut


_Waiting = _Pair | _Order | Candidate


class _Search:
    def __init__(self, experiment: Experiment, shown: int) -> None:
        self.shown = shown
        self.experiment, self.on = experiment, rates_for(experiment)
        self.capacity = experiment.machines.memory_gib * GIB
        self.models = experiment.actor_model, experiment.critic_model
        self.heap: list[tuple[float, int, _Waiting]] = []
        self.numbers = count()
        self.needs: dict[tuple[Layout, int, Savings], Training] = {}
        self.orders: set[tuple[Layout, int]] = set()
        self.fitted: set[tuple[Choice, Workload, Workload]] = set()
        self.played, self.passed_over, self.unplayed = 0, float("inf"), 0

    def run(self) -> Found:
        """Return the best plans, the shortest first."""
        for candidate in named(self.experiment):
            self.put(candidate.predicted.times.step, candidate)
        world = most_devices(self.experiment)
        sides = list(makings(self.experiment, world))
        for learn in learnings(self.experiment, world):
            for make in sides:
                self.put(learn.seconds + make.cuts[0].seconds, _Pair(learn, make))
        best: dict[tuple[object, ...], Candidate] = {}
        while self.heap and len(best) < self.shown:
            bound, _, item = heapq.heappop(self.heap)
            if isinstance(item, Candidate):
                choice = item.plan.choice
                best.setdefault((choice.training, choice.generation, choice.schedule), item)
            elif isinstance(item, _Order):
                self.play(item, bound)
            else:
                self.open(item)
        steps = [candidate.predicted.times.step for candidate in best.values()]
        least = min(steps[0], self.passed_over) if steps else self.passed_over
        missed = self.unplayed if steps and self.passed_over < steps[0] else 0
        return Found(tuple(best.values()), least, missed)

    def put(self, bound: float, item: _Waiting) -> None:
        heapq.heappush(self.heap, (bound, next(self.numbers), item))

    def open(self, pair: _Pair) -> None:
        """Put back a pair with the switch of every mapping, its micro-batches by what then fits."""
        for mapping in self.mappings(pair):
            choice = self.choice(pair, mapping)
            switch = switch_of(
                self.models[0], choice, node=self.on.node, width=self.on.kinds.weight
            )
            beside, switching = held_beside(switch)
            fullest, least = max(beside, switching), float("inf")
            for way in pair.learn.ways:
                free = self.capacity - way.rest
                make = self.fitting(pair.make, free - beside) if switching <= free else None
                if make is None:
                    continue
                seconds = make.seconds + switched(switch, self.on)
                for cut, needed in way.cuts:
                    if needed is None:
                        self.put(seconds + cut.seconds, _Order(choice, fullest, cut, make))
                    elif needed.peak(fullest) <= self.capacity:
                        if seconds + cut.seconds < least:  # else sharding has gained nothing
                            self.whole(choice, cut, make.work)
                        least = min(least, seconds + cut.seconds)
                        break

    def mappings(self, pair: _Pair) -> tuple[MappingName, ...]:
        if pair.learn.layout == pair.make.layout:
            return ("overlap",)
        sides = pair.learn.layout, pair.make.layout
        return tuple(mapping for mapping in _MAPPINGS if possible(mapping, *sides))

    def fitting(self, make: Making, free: float) -> Cut | None:
        """Return generation's shortest micro-batches that fit into what is free."""
        return next((cut for cut in make.cuts if cut.needed <= free), None)

    def play(self, order: _Order, bound: float) -> None:
        """Find and play a fused order, and put it back with its time if it fits."""
        cut, layout = order.cut, order.choice.training
        whole = cut.savings._replace(shard_optimizer=False)
        key, size = (layout, cut.work.micro_batch), layout.pipeline * cut.work.local(layout.data)
        twin = self.key(order, whole)
        if cut.savings.shard_optimizer and twin in self.fitted:
            return  # as long with whole optimizers
        if key not in self.orders:
            size //= cut.work.micro_batch
            if self.played + size > FUSED_WORK:
                self.unplayed, self.passed_over = self.unplayed + 1, min(self.passed_over, bound)
                return
            self.played += size
            self.orders.add(key)
        if (*key, cut.savings) not in self.needs:
            self.needs[*key, cut.savings] = training(
                *self.models, layout, cut.work, "fused", self.on.kinds, savings=cut.savings
            )
        if self.needs[*key, cut.savings].peak(order.beside) <= self.capacity:
            self.fitted.add(self.key(order, cut.savings))
            self.whole(order.choice, cut, order.make.work)

    def key(self, order: _Order, savings: Savings) -> tuple[Choice, Workload, Workload]:
        """Return what tells an order with some savings from others."""
        return _saving(order.choice, savings), order.cut.work, order.make.work

    def choice(self, pair: _Pair, mapping: MappingName) -> Choice:
        return Choice(
            training=pair.learn.layout,
            generation=pair.make.layout,
            mapping=mapping,
            schedule=pair.learn.schedule,
            inference="merged",
        )

    def whole(self, choice: Choice, cut: Cut, make: Workload) -> None:
        """Put back a whole plan with its predicted step."""
        work = msgspec.structs.replace(
            cut.work,
            decode_micro_batch=make.decode_micro_batch,
            prefill_micro_batch=make.prefill_micro_batch,
        )
        asked = msgspec.structs.replace(self.experiment, work=work)
        plan = make_plan(asked, "auto", _saving(choice, cut.savings))
        candidate = Candidate(plan, predict(plan, self.experiment.machines))
        self.put(candidate.predicted.times.step, candidate)


def _saving(choice: Choice, savings: Savings) -> Choice:
    return msgspec.structs.replace(choice, **savings._asdict())
