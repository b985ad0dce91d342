"""What a step came to over all replicas, and what the run adapts by it: the same on every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import torch
import torch.distributed as dist

from puzzle.inputs.ppo import Ppo
from puzzle.run.adapted import Adapted, Moments, adapted_weight
from puzzle.run.experience import Experience
from puzzle.run.groups import Groups
from puzzle.run.learn import Seen
from puzzle.run.settings import Job, StepFigures
from puzzle.run.update import Update

_MOMENTS = ("scores", "returns")


def summed(
    experience: Experience | None,
    seen: Seen,
    adapted: Adapted,
    groups: Groups,
    device: torch.device,
    scored: tuple[int, int] = (0, 0),
) -> dict[str, float]:
    """Return sums over all replicas by name, on every rank; all ranks call it.

    Each rank gives what it alone knows, and 0 for the rest: experience on the last stage, losses
    where their models end, moments on the first rank that makes experience. `scored` are
    the answers that this rank's rewards failed at, and those that they were asked of.
    """
    place = groups.place
    own = dict.fromkeys(("score", "answers", "divergence", "tokens", "cut_off"), 0.0)
    if experience is not None and groups.last and place.slice == 0:
        e = experience
        found = e.score, torch.ones_like(e.score), e.divergence, e.tokens, e.cut_off
        own = {key: float(x.double().sum()) for key, x in zip(own, found, strict=True)}
    mine = seen if place.slice == 0 else Seen()
    own |= dict(zip(("failed", "asked"), map(float, scored), strict=True))
    own |= mine.read()
    tells = groups.last and place.replica == place.slice == 0
    for name in _MOMENTS:
        moments: Moments = getattr(adapted, name) if tells else Moments()
        own |= {f"{name}/{k}": v for k, v in msgspec.structs.asdict(moments).items()}
    sums = torch.tensor(list(own.values()), dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return dict(zip(own, sums.tolist(), strict=True))


def adapted_after(sums: dict[str, float], adapted: Adapted, ppo: Ppo) -> Adapted:
    """Return the next step's weight of the divergence, and the moments that one rank told all."""
    answers = sums["answers"]
    weight = adapted_weight(adapted.kl_weight, sums["divergence"] / answers, round(answers), ppo)
    told = {
        name: Moments(*(sums[f"{name}/{field}"] for field in Moments.__struct_fields__))
        for name in _MOMENTS
    }
    return Adapted(weight, **told)


class Told(NamedTuple):
    """What a rank knows of its step beside sums and times."""

    number: int
    job: Job
    kl_weight: float
    replaced: int
    held_reward: float | None


def step_figures(
    told: Told,
    sums: dict[str, float],
    seconds: Sequence[float],
    updates: Mapping[str, Update],
    count: int,
) -> StepFigures:
    """Return a step's figures from its sums; `count` updates of each model were made.

    `seconds` are of generation, inference, training and the switch.
    """
    answers, critic = sums["answers"], updates.get("critic")
    generation, infer, training, switch = seconds
    return StepFigures(
        step=told.number,
        reward=sums["score"] / answers,
        rewards_failed=int(sums["failed"]),
        replaced=told.replaced,
        held_reward=told.held_reward,
        kl=sums["divergence"] / max(1.0, sums["tokens"]),
        kl_weight=told.kl_weight,
        actor_loss=sums["actor"] / count,
        critic_loss=sums["critic"] / count,
        entropy=sums["entropy"] / count if told.job.ppo.entropy else None,
        clipped=sums["clipped"] / count,
        cut_off=sums["cut_off"] / answers,
        actor_norm=updates["actor"].norm,
        critic_norm=critic.norm if critic else 0.0,
        generation_s=generation,
        switch_s=switch,
        inference_s=infer,
        training_s=training,
        answer_tokens=sums["tokens"] / answers,
        actor_scale=updates["actor"].scale.value,
        critic_scale=critic.scale.value if critic else 1.0,
        skipped=sum(update.skipped for update in updates.values()),
    )
