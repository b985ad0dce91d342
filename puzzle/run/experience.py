"""What generation and inference tell about a replica's sequences, and what is learnt from it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.inputs.ppo import Ppo
from puzzle.run.adapted import Adapted, Moments
from puzzle.run.generate import Answers
from puzzle.run.groups import Groups
from puzzle.run.links import Directions, Sender, post
from puzzle.run.moments import moments_of, whitened
from puzzle.run.ppo import Advantages, advantages_of, last_answer_token, token_rewards
from puzzle.run.sample import PLAIN, Drawn
from puzzle.run.samples import Spread, group_advantages
from puzzle.run.stage import Stage, Tokens, whole_tokens


class Experience(NamedTuple):
    """Per sequence of a replica, on the last stage's ranks: first over the answer's transitions.

    All in one precision, that of the log-probabilities.
    """

    old: Tensor
    """N x A, log-probabilities when drawn; so are the five that follow."""
    reference: Tensor
    """Log-probabilities by the reference."""
    values: Tensor
    """As the critic gave them."""
    advantages: Tensor
    returns: Tensor
    """In units of the critic's output."""
    mask: Tensor
    """1 where a token is learnt."""
    score: Tensor
    """N, as the reward said."""
    divergence: Tensor
    """Sum of log-probability minus the reference's over each answer, N."""
    tokens: Tensor
    """Of each answer, learnt or not, N."""
    cut_off: Tensor
    """1 where an answer has no end, N."""


_WIDE = Experience._fields.index("score")
"""How many fields are over transitions; the rest are over sequences."""


class Told(NamedTuple):
    """What generation and the models say of a replica's sequences, N x S - 1 and N."""

    old: Tensor
    reference: Tensor
    values: Tensor
    """N x S: also after the last token."""
    scores: Tensor
    ended: Tensor
    """Which answers have an end, N."""


class Scores:
    """Collects what the inference stage's passes give, micro-batch by micro-batch."""

    def __init__(
        self, stages: dict[str, Stage], batches: list[Tokens], prompt: int, drawn: Drawn = PLAIN
    ) -> None:
        self.stages, self.batches, self.prompt, self.drawn = stages, batches, prompt, drawn
        self.found: dict[str, list[Tensor]] = {name: [] for name in stages}

    def finish(self, model: str, batch: int, y: Tensor) -> None:
        """Keep log-probabilities, values, or the value at the answer's last token."""
        stage, tokens = self.stages[model], self.batches[batch]
        if stage.role == "actor":
            rows = slice(batch * len(y), (batch + 1) * len(y))
            result = stage.next_log_probs(y, tokens.ids, self.drawn.rows(rows))
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
    """Return sequences in micro-batches of `size`, a divisor of their number."""
    pairs = zip(answers.ids.split(size), answers.valid.split(size), strict=True)
    return [whole_tokens(ids, valid) for ids, valid in pairs]


def told_by(answers: Answers, scores: Scores, scores_N: Tensor, ended_N: Tensor) -> Told:
    """Return what the inference stage found; the old log-probabilities from it, if it has them."""
    reference = scores.whole("reference")
    old = torch.zeros_like(reference)
    old[:, scores.prompt - 1 :] = answers.log_probs
    if "actor" in scores.found:
        old = scores.whole("actor")
    kind = answers.log_probs.dtype
    values = torch.zeros_like(answers.valid, dtype=reference.dtype)  # where there is no critic
    if "critic" in scores.found:
        values = scores.whole("critic")
    return Told(old, reference, values, scores_N.to(kind), ended_N)


def normalised(
    scores_N: Tensor, so_far: Moments, ppo: Ppo, group: dist.ProcessGroup | None
) -> tuple[Tensor, Moments]:
    """Return scores over the deviation of all so far, these included; and their moments.

    `scale` s / deviation, `whiten` (s - mean) / deviation, `none` s.
    """
    if ppo.normalise_rewards == "none":
        return scores_N, so_far
    moments = so_far.joined(moments_of(scores_N, torch.ones_like(scores_N), group))
    mean = moments.mean if ppo.normalise_rewards == "whiten" else 0.0
    return ((scores_N.double() - mean) / moments.deviation).to(scores_N.dtype), moments


def make_experience(
    told: Told,
    valid_NS: Tensor,
    prompt: int,
    ppo: Ppo,
    adapted: Adapted,
    spread: Spread,
) -> tuple[Experience, Adapted]:
    """Return what a replica learns from, and the run's moments with this step's numbers.

    `spread` has the other replicas. With normalised values the critic gives u, and expects
    V = mean + deviation u by the moments of the returns R of the steps before; it learns
    (R - mean) / deviation.
    """
    group = spread.group
    scores, of_scores = normalised(told.scores, adapted.scores, ppo, group)
    unit = adapted.returns if ppo.normalise_values else Moments()
    answer = valid_NS[:, prompt:].to(told.old.dtype)
    mask = answer * told.ended[:, None] if ppo.missing_end == "mask" else answer
    rewards = token_rewards(
        told.old, told.reference, scores, valid_NS, prompt, ppo,
        ended_N=told.ended, kl_weight=adapted.kl_weight,
    )  # fmt: skip
    if ppo.algorithm in ("grpo", "rloo"):
        own = group_advantages(rewards[:, prompt - 1 :], answer, ppo, spread)
        found = Advantages(own, torch.zeros_like(own))
    else:
        found = _advantages(told, rewards, unit, valid_NS, prompt, ppo)
    whiten = ppo.whiten or ppo.algorithm == "reinforce++"
    advantages = whitened(found.advantages, mask, group) if whiten else found.advantages
    of_returns = adapted.returns
    if ppo.normalise_values:
        of_returns = of_returns.joined(moments_of(found.returns, mask, group))
    old, reference = (x[:, prompt - 1 :] for x in (told.old, told.reference))
    experience = Experience(
        old,
        reference,
        told.values[:, prompt - 1 : -1],
        advantages,
        (found.returns - unit.mean) / unit.deviation,
        mask,
        told.scores,
        ((old - reference) * answer).sum(1),
        answer.sum(1),
        (~told.ended).to(old.dtype),
    )
    return experience, Adapted(adapted.kl_weight, of_scores, of_returns)


def _advantages(
    told: Told, rewards: Tensor, unit: Moments, valid_NS: Tensor, prompt: int, ppo: Ppo
) -> Advantages:
    """Return advantages and returns in units of the score; the critic's are those of `unit`.

    Without a critic nothing is expected: what is left is each token's discounted return.
    """
    if not ppo.critic_learns:
        ppo = msgspec.structs.replace(ppo, lam=1.0)
        return advantages_of(torch.zeros_like(rewards), rewards, valid_NS, prompt, ppo)
    values = told.values * unit.deviation + unit.mean
    beyond = values[:, -1] * ~told.ended if ppo.missing_end == "bootstrap" else None
    return advantages_of(values[:, :-1], rewards, valid_NS, prompt, ppo, beyond)


def meet(scores: Scores, groups: Groups, directions: Directions, answers: Answers) -> None:
    """Bring what models that end on the first stage's rank found to the last stage's rank."""
    names = [name for name in ("critic", "reward") if name in scores.stages]
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
        wide, rows = answers.log_probs, answers.log_probs[:, 0]
        likes = [wide] * _WIDE + [rows] * (len(Experience._fields) - _WIDE)
        made = [torch.empty_like(like) for like in likes]
        for part in made:
            post(directions, groups.rank(end), part).wait()
        experience = Experience(*made)
    sender.drain()
    return experience
