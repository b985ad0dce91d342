"""A plan as a value: layouts, mapping, schedules, and what the switch moves.

This is what `plan` writes as JSON and `simulate` and `run` read. Nothing here is predicted time.
"""

from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import msgspec

from common.errors import InputError
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, check_layout
from puzzle.inputs.workload import Workload, check_workload
from puzzle.plan.reshard import Move, ReshardPlan, buckets, make_reshard_plan, peak_elements
from puzzle.plan.slices import held_elements

HALF = 2
"""Bytes of a half-precision weight."""


class Switch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a switch does, in half-precision bytes; per-device figures by rank."""

    received: tuple[int, ...]
    sent: tuple[int, ...]
    copied: tuple[int, ...]
    kept: tuple[int, ...]
    """Used where they are."""
    messages: tuple[int, ...]
    """Received."""
    beside: int
    """Held beside the training shard on the fullest device."""
    peak: int
    """Both shards on the fullest device."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a PPO step is carried out."""

    schema: str = "puzzle-plan/1"
    experiment: str
    method: str
    actor: Llama
    critic: Llama
    work: Workload
    choice: Choice
    switch: Switch | None
    """None where both layouts are the same."""
    released: bool = False
    """With the original's faults: tensor by tensor, both copies, the critic never updated."""

    @property
    def world(self) -> int:
        """Ranks."""
        return self.choice.training.world


def make_plan(experiment: Experiment, method: str, choice: Choice | None = None) -> Plan:
    """Return the plan of a method that does not search; `choice` in place of the experiment's."""
    given = choice or experiment.choice
    if given.training.world > experiment.world:
        raise InputError(
            f"{experiment.name}: choice.training {given.training} has {given.training.world} ranks,"
            f" but devices is {experiment.world}; change one of them"
        )
    train, generate = given.training, given.generation
    if method == "base":
        given = _alone(given, train)
    elif method == "generation":
        given = _alone(given, generate)
    elif method == "released":
        given = msgspec.structs.replace(
            given, mapping="original", schedule="merged", inference="sequential"
        )
    released = method == "released"
    plan = Plan(
        experiment=experiment.name,
        method=method,
        actor=experiment.actor_model,
        critic=experiment.critic_model,
        work=experiment.work,
        choice=given,
        switch=switch_of(experiment.actor_model, given, released=released),
        released=released,
    )
    check(plan, experiment.name)
    return plan


def _alone(given: Choice, layout: Layout) -> Choice:
    """Return one layout for all stages, nothing merged."""
    return msgspec.structs.replace(
        given, training=layout, generation=layout, schedule="sequential", inference="sequential"
    )


def reshard_of(plan: Plan) -> ReshardPlan:
    """Return the switch's moves."""
    c = plan.choice
    return make_reshard_plan(c.training, c.generation, plan.actor, c.mapping)


@lru_cache(maxsize=4096)
def switch_of(actor: Llama, choice: Choice, *, released: bool = False) -> Switch | None:
    """Return the figures of a choice's switch, None where there is none."""
    train, generate = choice.training, choice.generation
    if train == generate:
        return None
    moves = make_reshard_plan(train, generate, actor, choice.mapping)
    ranks = range(train.world)
    beside = [
        HALF * (peak_elements(moves, actor, rank) - _held(actor, train, rank)) for rank in ranks
    ]
    if released:  # a copy of its own of everything
        beside = [
            HALF * held_elements(actor, "actor", generate, place.stage, place.slice)
            for place in moves.places
        ]
    peaks = [extra + HALF * _held(actor, train, rank) for rank, extra in enumerate(beside)]
    received = tuple(HALF * moves.received(rank) for rank in ranks)
    return Switch(
        received=received,
        sent=tuple(HALF * moves.sent(rank) for rank in ranks),
        copied=tuple(HALF * moves.copied(rank) for rank in ranks),
        kept=tuple(HALF * moves.kept(rank) for rank in ranks),
        messages=tuple(messages(moves, rank) for rank in ranks),
        beside=max(beside),
        peak=max(peaks),
    )


def messages(moves: ReshardPlan, rank: int, width: int = HALF) -> int:
    """Return the messages that a rank receives, at most four from each other."""
    coming: dict[int, list[Move]] = defaultdict(list)
    for move in moves.moves:
        if move.target == rank != move.source:
            coming[move.source].append(move)
    return sum(len(buckets(each, width)) for each in coming.values())


def _held(model: Llama, layout: Layout, rank: int) -> int:
    place = layout.place(rank)
    return held_elements(model, "actor", layout, place.stage, place.slice)


def check(plan: Plan, where: str = "plan") -> None:
    """Raise InputError unless models, layouts and batch sizes fit together."""
    train, generate = plan.choice.training, plan.choice.generation
    if train.world != generate.world:
        raise InputError(
            f"{where}: training layout {train} has {train.world} ranks and generation layout"
            f" {generate} has {generate.world}; a switch needs the same ranks"
        )
    check_layout(plan.actor, train, f"{where}: actor, training layout")
    check_layout(plan.actor, generate, f"{where}: actor, generation layout")
    check_layout(plan.critic, train, f"{where}: critic, training layout")
    check_workload(plan.work, train.data, generate.data)


def write(plan: Plan, path: Path) -> None:
    """Write the plan as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(plan) + b"\n")


def read(path: Path) -> Plan:
    """Read a plan and check it."""
    if not path.is_file():
        raise InputError(f"{path}: no such plan file; write one with the verb plan")
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except (msgspec.DecodeError, InputError) as error:
        raise InputError(f"{path}: not a valid plan: {error}") from error
    check(plan, str(path))
    return plan
