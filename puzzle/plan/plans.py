"""A plan as a value: layouts, mapping, schedules, and what the switch moves.

This is what `plan` writes as JSON and `simulate` and `run` read. Nothing here is predicted time.
"""

from functools import lru_cache
from typing import ClassVar

import msgspec

from common.errors import InputError
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout, Place
from puzzle.inputs.model import Llama, check_layout
from puzzle.inputs.precision import DtypeName, kinds_of
from puzzle.inputs.workload import Workload, check_workload
from puzzle.plan.mappings import MappingName
from puzzle.plan.reshard import BUCKET, ReshardPlan, bucket_ends, make_reshard_plan
from puzzle.plan.shares import Shares, shares
from puzzle.plan.slices import held_elements, stage_tensors
from puzzle.plan.sources import Unit, exchange


class Switch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a switch does, in bytes; per-device figures by rank."""

    by_rank: ClassVar = (
        "received", "sent", "copied", "kept", "from_nodes", "to_nodes", "messages",
    )  # fmt: skip

    received: tuple[int, ...]
    sent: tuple[int, ...]
    copied: tuple[int, ...]
    kept: tuple[int, ...]
    """Used where they are."""
    from_nodes: tuple[int, ...]
    """Of the received, from other nodes."""
    to_nodes: tuple[int, ...]
    """Of the sent, to other nodes."""
    messages: tuple[int, ...]
    """Received."""
    beside: int
    """Held beside the training shard on the fullest device."""
    making: int = 0
    """The same while it is made: with copies of what is under way to other devices."""
    peak: int
    """Both shards on the fullest device."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a PPO step is carried out."""

    schema: str = "puzzle-plan/2"
    experiment: str
    method: str
    question: str = ""
    """Digest of what was asked (`puzzle.plan.answer.question`), so that another is planned anew."""
    actor: Llama
    critic: Llama
    work: Workload
    choice: Choice
    dtype: DtypeName
    """Of weights in the passes."""
    critic_learns: bool = True
    """Whether there is a critic; `critic` is the reward model's body in any case."""
    devices_per_node: int
    """Of what the ranks are on; tensor groups of both layouts are inside a node."""
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
    node, dtype = experiment.machines.devices_per_node, experiment.dtype
    plan = Plan(
        experiment=experiment.name,
        method=method,
        actor=experiment.actor_model,
        critic=experiment.critic_model,
        work=experiment.work,
        choice=given,
        devices_per_node=node,
        dtype=dtype,
        critic_learns=experiment.critic_learns,
        switch=switch_of(
            experiment.actor_model,
            given,
            node=node,
            width=kinds_of(dtype).weight,
            released=released,
        ),
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
    return make_reshard_plan(
        c.training, c.generation, plan.actor, c.mapping, node=plan.devices_per_node
    )


def switch_of(
    actor: Llama, choice: Choice, *, node: int = 0, width: int = 2, released: bool = False
) -> Switch | None:
    """Return the figures of a choice's switch, None where there is none.

    They are those of the moves (`reshard_of`), added up by who needs what from whom; `width` bytes
    a weight.
    """
    train, generate = choice.training, choice.generation
    if train == generate:
        return None
    return _switch(actor, train, generate, choice.mapping, node, width, released)


@lru_cache(maxsize=4096)
def _switch(
    actor: Llama,
    train: Layout,
    generate: Layout,
    mapping: MappingName,
    node: int,
    width: int,
    released: bool,
) -> Switch:
    made = exchange(train, generate, actor, mapping, node=node)
    found = shares(actor, "actor", train, generate)
    by_rank = {name: [0] * train.world for name in Switch.by_rank}
    count = _Messages(actor, (train, generate), found, width)
    node = node or train.world
    for unit, source in zip(made.units, made.sources, strict=True):
        target, place = unit.target, made.places[unit.target]
        if source == target:
            whole = int(found.pieces[unit.slice, place.slice]) == found.whole
            by_rank["kept"][target] += unit.norms + unit.cut * whole
            by_rank["copied"][target] += unit.cut * (not whole)
            continue
        by_rank["received"][target] += unit.size
        by_rank["sent"][source] += unit.size
        by_rank["messages"][target] += count.of(unit, place)
        if source // node != target // node:
            by_rank["from_nodes"][target] += unit.size
            by_rank["to_nodes"][source] += unit.size
    need = found.needed()
    after = [int(need[place.stage]) for place in made.places]
    new = after if released else [n - k for n, k in zip(after, by_rank["kept"], strict=True)]
    before = [_held(actor, train, rank) for rank in range(train.world)]
    bytes_of = {
        name: tuple(values if name == "messages" else [width * v for v in values])
        for name, values in by_rank.items()
    }
    peak = max(a + b for a, b in zip(new, before, strict=True))
    # What goes to several ranks is copied once, and nothing but the own shard goes.
    going = [min(sent, own) for sent, own in zip(by_rank["sent"], before, strict=True)]
    making = max(a + b for a, b in zip(new, going, strict=True))
    return Switch(**bytes_of, beside=width * max(new), making=width * making, peak=width * peak)


class _Messages:
    """Counts the messages of what one rank needs of one stage and slice, alike for all replicas."""

    def __init__(
        self, model: Llama, layouts: tuple[Layout, Layout], found: Shares, width: int
    ) -> None:
        self.found, self.width = found, width
        self.tensors = [stage_tensors(model, "actor", layout.pipeline) for layout in layouts]
        self.parts = found.whole * layouts[1].tensor
        self.known: dict[tuple[int, int, int, int, bool], int] = {}

    def of(self, unit: Unit, place: Place) -> int:
        if self.width * unit.size <= BUCKET:
            return 1
        key = unit.stage, unit.slice, place.stage, place.slice, unit.norms > 0
        if key not in self.known:
            pieces = int(self.found.pieces[unit.slice, place.slice])
            old, new = self.tensors
            there = set(old[unit.stage])
            both = [tensor for tensor in new[place.stage] if tensor in there]
            sizes = [
                self.width * (t.size if t.axis is None else t.size // self.parts * pieces)
                for t in both
                if (unit.norms if t.axis is None else pieces)
            ]
            self.known[key] = len(bucket_ends(sizes))
        return self.known[key]


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
    if plan.choice.schedule == "fused" and not plan.critic_learns:
        raise InputError(
            f"{where}: without a critic there is nothing to fuse; set choice.schedule to 'merged'"
        )
    check_workload(plan.work, train.data, generate.data)
    for name, model in (("actor", plan.actor), ("critic", plan.critic)):
        if 0 < model.window < plan.work.length:
            raise InputError(
                f"{where}: the {name} attends to {model.window} tokens back, but work.prompt +"
                f" work.answer is {plan.work.length}, and only whole attention is run; shorten them"
            )
