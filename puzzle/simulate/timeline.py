"""The pass lists played in time, beside the closed form."""

from typing import NamedTuple

from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.inputs.workload import Workload
from puzzle.plan.passes import ModelName, Pass, Schedule
from puzzle.plan.plans import Plan
from puzzle.plan.play import Played, play
from puzzle.plan.schedules import actor_alone, inference, make_schedule, pass_ratio
from puzzle.simulate.cost import PassTimes, pass_times, update_time
from puzzle.simulate.rates import Rates


class Timeline(NamedTuple):
    """A schedule with the time of every pass."""

    schedule: Schedule
    played: Played

    @property
    def seconds(self) -> float:
        """Of the whole."""
        return self.played.seconds

    @property
    def busy(self) -> tuple[float, ...]:
        """Part of the time that each rank computes."""
        return tuple(
            sum(e - s for s, e in zip(starts, ends, strict=True)) / self.seconds
            for starts, ends in zip(self.played.starts, self.played.ends, strict=True)
        )

    def of(self, rank: int) -> list[tuple[Pass, float, float]]:
        """Return a rank's passes that take time, with start and end in seconds."""
        program = self.schedule.programs[rank]
        rows = zip(program, self.played.starts[rank], self.played.ends[rank], strict=True)
        return [(item, start, end) for item, start, end in rows if end > start]


def training_timeline(plan: Plan, on: Rates, schedule: str = "") -> Timeline:
    """Return the training stage's passes in time, by the plan's schedule or another.

    Messages are in the passes' own times.
    """
    kind = schedule or plan.choice.schedule
    layout, steps = plan.choice.training, not plan.released
    return play_training(kind, plan.actor, plan.critic, layout, plan.work, on, steps_critic=steps)


def play_training(
    schedule: str,
    actor: Llama,
    critic: Llama,
    layout: Layout,
    work: Workload,
    on: Rates,
    *,
    steps_critic: bool = True,
) -> Timeline:
    """Play a schedule's pass list with the predicted times of its passes and updates."""
    batches = work.local(layout.data) // work.micro_batch
    made = actor_alone(layout.pipeline, batches)
    if on.critic_learns:
        made = make_schedule(schedule, layout.pipeline, batches, pass_ratio(actor, critic))
    size, length = work.micro_batch, work.length
    times = {
        name: pass_times(model, layout, size, length, on, head=head, train=True)
        for name, model, head in (("actor", actor, True), ("critic", critic, False))
    }
    updates = {
        "actor": update_time(actor, layout, on),
        "critic": update_time(critic, layout, on) if steps_critic else 0.0,
    }

    def seconds(rank: int, item: Pass) -> float:
        return updates[item.model] if item.kind == "U" else _of(times, made, rank, item)

    return Timeline(made, play(made, seconds))


def least_training(actor: Llama, critic: Llama, layout: Layout, work: Workload, on: Rates) -> float:
    """Return what no fused order can be shorter than.

    A rank begins when the first micro-batch of either model has come to it, has all its passes to
    do, and the gradient of its last one still goes back to that model's first stage; both updates
    come after the last pass of all.
    """
    m, size, length = work.local(layout.data) // work.micro_batch, work.micro_batch, work.length
    a, b = (
        pass_times(model, layout, size, length, on, head=head, train=True)
        for model, head in ((actor, True), (critic, False))
    )
    last, least = layout.pipeline - 1, 0.0
    for rank in range(layout.pipeline):
        turned = last - rank
        own = a.forward[rank] + a.backward[rank] + b.forward[turned] + b.backward[turned]
        before = min(sum(a.forward[:rank]), sum(b.forward[:turned]))
        after = min(sum(a.backward[:rank]), sum(b.backward[:turned]))
        least = max(least, before + m * own + after)
    return least + update_time(actor, layout, on) + update_time(critic, layout, on)


def inference_timeline(plan: Plan, on: Rates) -> Timeline:
    """Return the inference stage's passes in time, as one stream."""
    layout, work = plan.choice.training, plan.work
    local = work.local(layout.data)
    size = work.scored(local)
    batches = local // size
    names: tuple[ModelName, ...] = ("reference", "reward", "critic")
    schedule = inference(layout.pipeline, batches, names if on.critic_learns else names[:2])
    body = pass_times(plan.critic, layout, size, work.length, on, head=False, train=False)
    times = {
        "reference": pass_times(plan.actor, layout, size, work.length, on, head=True, train=False),
        "reward": body,
        "critic": body,
    }
    return Timeline(schedule, play(schedule, lambda rank, item: _of(times, schedule, rank, item)))


def _of(times: dict[str, PassTimes], schedule: Schedule, rank: int, item: Pass) -> float:
    stage = schedule.stage(item.model, rank)
    if item.kind == "F":
        return times[item.model].forward[stage]
    return times[item.model].backward[stage] if item.kind == "B" else 0.0
