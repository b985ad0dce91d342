"""What generation and inference tell about a replica's sequences, and what is learnt from it."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.inputs.ppo import Ppo
from puzzle.run.generate import Answers
from puzzle.run.groups import Groups
from puzzle.run.links import Directions, Sender, post
from puzzle.run.ppo import advantages_of, last_answer_token, token_rewards, whitened
from puzzle.run.stage import Stage, Tokens, whole_tokens


class Experience(NamedTuple):
    """Per sequence of a replica, over the answer's transitions N x A, on the last stage's ranks."""

    old: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    mask: Tensor
    score: Tensor
    """N, as the reward said."""
    divergence: Tensor
    """Sum of log-probability minus the reference's over each answer, N."""


class Scores:
    """Collects what the inference stage's passes give, micro-batch by micro-batch."""

    def __init__(self, stages: dict[str, Stage], batches: list[Tokens], prompt: int) -> None:
        self.stages, self.batches, self.prompt = stages, batches, prompt
        self.found: dict[str, list[Tensor]] = {name: [] for name in stages}

    def finish(self, model: str, batch: int, y: Tensor) -> None:
        """Keep log-probabilities, values, or the value at the answer's last token."""
        stage, tokens = self.stages[model], self.batches[batch]
        if stage.role == "actor":
            result = stage.next_log_probs(y, tokens.ids)
        else:
            result = stage.values(y)
            if model == "reward":
                last = last_answer_token(tokens.valid, self.prompt)
                result = result.gather(1, last[:, None])[:, 0]
        self.found[model].append(result)

    def whole(self, model: str) -> Tensor:
        """Return all micro-batches' results together."""
        return torch.cat(self.found[model])


def micro_batches(answers: Answers, size: int) -> list[Tokens]:
    """Return sequences in micro-batches of `size`, or of a divisor of both where it has a rest."""
    rows = len(answers.ids)
    size = size if rows % size == 0 else gcd(rows, size)
    pairs = zip(answers.ids.split(size), answers.valid.split(size), strict=True)
    return [whole_tokens(ids, valid) for ids, valid in pairs]


def make_experience(
    answers: Answers, scores: Scores, rewards_N: Tensor, groups: Groups, ppo: Ppo
) -> Experience:
    """Return what a replica learns from; the old log-probabilities as `ppo` says."""
    prompt, mask = scores.prompt, answers.valid[:, 1:]
    start = prompt - 1
    reference = scores.whole("reference")
    old = torch.zeros_like(reference)
    old[:, start:] = answers.log_probs
    if "actor" in scores.found:
        old = scores.whole("actor")
    values = scores.whole("critic")[:, :-1]
    tokens = token_rewards(old, reference, rewards_N, answers.valid, prompt, ppo)
    found = advantages_of(values, tokens, answers.valid, prompt, ppo)
    inner = mask[:, start:].float()
    advantages = found.advantages
    if ppo.whiten:
        sums = torch.stack(
            [inner.sum(), (advantages * inner).sum(), (advantages.square() * inner).sum()]
        )
        if groups.data is not None:
            dist.all_reduce(sums, group=groups.data)
        advantages = whitened(advantages, inner, sums)
    return Experience(
        old[:, start:],
        values[:, start:],
        advantages,
        found.returns,
        inner,
        rewards_N,
        ((old - reference)[:, start:] * inner).sum(1),
    )


def meet(
    scores: Scores, groups: Groups, directions: Directions, answers: Answers, rewarded: bool
) -> None:
    """Bring what models that end on the first stage's rank found to the last stage's rank."""
    names = ["critic", "reward"] if rewarded else ["critic"]
    end = groups.layout.pipeline - 1
    sender = Sender(directions)
    if end and groups.first:
        for name in names:
            sender.send(groups.rank(end), scores.whole(name))
    elif end and groups.last:
        for name in names:
            like = answers.log_probs
            shape = answers.ids.shape if name == "critic" else answers.ids.shape[:1]
            there = like.new_empty(shape)
            post(directions, groups.rank(0), there).wait()
            scores.found[name] = [there]
    sender.drain()


def share(
    experience: Experience | None, groups: Groups, directions: Directions, answers: Answers
) -> Experience | None:
    """Bring the experience to the first stage's rank too, where the critic's loss is made."""
    end = groups.layout.pipeline - 1
    sender = Sender(directions)
    if end and experience is not None:
        for part in experience:
            sender.send(groups.rank(0), part)
    elif end and groups.first:
        wide, rows = torch.empty_like(answers.log_probs), answers.log_probs[:, 0]
        made = [
            *(torch.empty_like(wide) for _ in range(5)),
            *(torch.empty_like(rows) for _ in "ab"),
        ]
        for part in made:
            post(directions, groups.rank(end), part).wait()
        experience = Experience(*made)
    sender.drain()
    return experience
