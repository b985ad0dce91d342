"""The formulas of PPO as DeepSpeed-Chat has them, on tensors (specification section 2.4).

Sequences N x S are prompts of L tokens (left-padded) and answers; arrays of transitions have S - 1
entries, entry j belonging to token j + 1. Answers begin at entry L - 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from puzzle.inputs.ppo import Ppo


def last_answer_token(mask_NS: Tensor, prompt: int) -> Tensor:
    """Return the index of each sequence's last real answer token (the prompt's last if none)."""
    return prompt - 1 + mask_NS[:, prompt:].long().sum(1)


def token_rewards(
    log_probs: Tensor, reference: Tensor, scores_N: Tensor, mask_NS: Tensor, prompt: int, ppo: Ppo
) -> Tensor:
    """Return r = -kl (logp - reference), the clipped score added at the answer's last token.

    N x (S - 1); zero after the answer's end; entries before the answer are of no use.
    `dschat_compat` puts the score one place later where an answer ends early, onto padding, as
    DeepSpeed-Chat does.
    """
    rewards = -ppo.kl * (log_probs - reference)
    count = rewards.shape[1]
    last = last_answer_token(mask_NS, prompt) - 1  # its transition
    if ppo.dschat_compat:
        last = (last + 1).clamp(max=count - 1)
    places = torch.arange(count, device=rewards.device)[None]
    inside = places <= last[:, None]
    scores = scores_N.clamp(-ppo.score_clip, ppo.score_clip)
    return rewards * inside + scores[:, None] * (places == last[:, None])


class Advantages(NamedTuple):
    """Of the answer's transitions, N x (S - L)."""

    advantages: Tensor
    returns: Tensor


def advantages_of(
    values: Tensor, rewards: Tensor, mask_NS: Tensor, prompt: int, ppo: Ppo
) -> Advantages:
    """Return generalised advantages and returns; `values` and `rewards` are N x (S - 1).

    Both are zero after the answer's end, so that nothing is expected there.
    """
    start, count = prompt - 1, values.shape[1]
    last = last_answer_token(mask_NS, prompt) - 1
    if ppo.dschat_compat:
        last = (last + 1).clamp(max=count - 1)
    inside = torch.arange(count, device=values.device)[None] <= last[:, None]
    values, rewards = values * inside, rewards * inside
    running = torch.zeros_like(values[:, 0])
    found: list[Tensor] = []
    for j in reversed(range(start, count)):
        following = values[:, j + 1] if j + 1 < count else torch.zeros_like(running)
        delta = rewards[:, j] + ppo.gamma * following - values[:, j]
        running = delta + ppo.gamma * ppo.lam * running
        found.append(running)
    advantages = torch.stack(found[::-1], 1)
    return Advantages(advantages, advantages + values[:, start:])


def actor_loss(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, ppo: Ppo) -> Tensor:
    """Return the clipped surrogate loss over the answer's transitions."""
    ratio = ((new - old) * mask).exp()
    clipped = ratio.clamp(1 - ppo.ratio_clip, 1 + ppo.ratio_clip)
    return _mean(torch.maximum(-advantages * ratio, -advantages * clipped), mask)


def critic_loss(new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, ppo: Ppo) -> Tensor:
    """Return half the clipped squared error of the values over the answer's transitions."""
    near = torch.minimum(torch.maximum(new, old - ppo.value_clip), old + ppo.value_clip)
    return 0.5 * _mean(torch.maximum((new - returns).square(), (near - returns).square()), mask)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whitened(advantages: Tensor, mask: Tensor, sums: Tensor) -> Tensor:
    """Return advantages of mean 0 and deviation 1; `sums` are count, sum and sum of squares."""
    count, total, squares = sums.unbind()
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=1e-8).sqrt()
    return (advantages - mean) / deviation * mask
