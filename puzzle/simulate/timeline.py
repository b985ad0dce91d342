"""The pass lists played in time, beside the closed form; pictures and a Perfetto trace."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from puzzle.inputs.cluster import Constants
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.inputs.workload import Workload
from puzzle.plan.passes import Pass, Schedule
from puzzle.plan.plans import Plan
from puzzle.plan.play import Played, play
from puzzle.plan.schedules import inference, make_schedule, pass_ratio
from puzzle.simulate.cost import PassTimes, pass_times, update_time


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


def training_timeline(plan: Plan, c: Constants, schedule: str = "") -> Timeline:
    """Return the training stage's passes in time, by the plan's schedule or another.

    Messages are in the passes' own times.
    """
    kind = schedule or plan.choice.schedule
    layout, steps = plan.choice.training, not plan.released
    return play_training(kind, plan.actor, plan.critic, layout, plan.work, c, steps_critic=steps)


def play_training(
    schedule: str,
    actor: Llama,
    critic: Llama,
    layout: Layout,
    work: Workload,
    c: Constants,
    *,
    steps_critic: bool = True,
) -> Timeline:
    """Play a schedule's pass list with the predicted times of its passes and updates."""
    batches = work.local(layout.data) // work.micro_batch
    made = make_schedule(schedule, layout.pipeline, batches, pass_ratio(actor, critic))
    size, length = work.micro_batch, work.length
    times = {
        name: pass_times(model, layout, size, length, c, head=head, train=True)
        for name, model, head in (("actor", actor, True), ("critic", critic, False))
    }
    updates = {
        "actor": update_time(actor, layout, c),
        "critic": update_time(critic, layout, c) if steps_critic else 0.0,
    }

    def seconds(rank: int, item: Pass) -> float:
        return updates[item.model] if item.kind == "U" else _of(times, made, rank, item)

    return Timeline(made, play(made, seconds))


def least_training(
    actor: Llama, critic: Llama, layout: Layout, work: Workload, c: Constants
) -> float:
    """Return what no fused order can be shorter than: the fullest rank's passes without a gap."""
    m, size, length = work.local(layout.data) // work.micro_batch, work.micro_batch, work.length
    a, b = (
        pass_times(model, layout, size, length, c, head=head, train=True)
        for model, head in ((actor, True), (critic, False))
    )
    passes = zip(a.forward, a.backward, b.forward[::-1], b.backward[::-1], strict=True)
    updates = update_time(actor, layout, c) + update_time(critic, layout, c)
    return m * max(sum(each) for each in passes) + updates


def inference_timeline(plan: Plan, c: Constants) -> Timeline:
    """Return the inference stage's passes in time, as one stream."""
    layout, work = plan.choice.training, plan.work
    size = work.inference_micro_batch
    batches = max(1, work.local(layout.data) // size)
    schedule = inference(layout.pipeline, batches, ("reference", "reward", "critic"))
    body = pass_times(plan.critic, layout, size, work.length, c, head=False, train=False)
    times = {
        "reference": pass_times(plan.actor, layout, size, work.length, c, head=True, train=False),
        "reward": body,
        "critic": body,
    }
    return Timeline(schedule, play(schedule, lambda rank, item: _of(times, schedule, rank, item)))


def _of(times: dict[str, PassTimes], schedule: Schedule, rank: int, item: Pass) -> float:
    stage = schedule.stage(item.model, rank)
    if item.kind == "F":
        return times[item.model].forward[stage]
    return times[item.model].backward[stage] if item.kind == "B" else 0.0


def write_trace(timelines: dict[str, Timeline], path: Path) -> Path:
    """Write the timelines one after the other as a trace that ui.perfetto.dev opens."""
    events: list[dict[str, Any]] = []
    offset = 0.0
    for name, timeline in timelines.items():
        played = timeline.played
        for rank, program in enumerate(timeline.schedule.programs):
            rows = zip(program, played.starts[rank], played.ends[rank], strict=True)
            for item, start, end in rows:
                if end > start:
                    events.append(
                        {
                            "name": str(item),
                            "cat": f"{name},{item.model}",
                            "ph": "X",
                            "pid": 0,
                            "tid": rank,
                            "ts": 1e6 * (offset + start),
                            "dur": 1e6 * (end - start),
                        }
                    )
        offset += timeline.seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}) + "\n")
    return path
