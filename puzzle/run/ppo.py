"""The formulas of PPO as DeepSpeed-Chat has them, on tensors (specification section 2.4).

Sequences N x S are prompts of L tokens (left-padded) and answers; arrays of transitions have S - 1
entries, entry j belonging to token j + 1. Answers begin at entry L - 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from puzzle.inputs.ppo import KlEstimator, Ppo
from puzzle.run.means import Totals, share_of_mean


def last_answer_token(mask_NS: Tensor, prompt: int) -> Tensor:
    """Return the index of each sequence's last real answer token (the prompt's last if none)."""
    return prompt - 1 + mask_NS[:, prompt:].long().sum(1)


def divergence(apart: Tensor, estimator: KlEstimator) -> Tensor:
    """Return an estimate of KL(actor, reference), nats, at tokens that the actor drew.

    With d = l - l_reference (Schulman 2020, "Approximating KL Divergence"): k1 = d, without bias
    and of either sign; k2 = d^2 / 2, biased; k3 = exp(-d) - 1 + d, without bias and never below 0.
    """
    if estimator == "k1":
        return apart
    if estimator == "k2":
        return 0.5 * apart.square()
    return torch.expm1(-apart) + apart


def final_scores(scores_N: Tensor, ended_N: Tensor, ppo: Ppo) -> Tensor:
    """Return what each answer's last token is rewarded with beside the divergence.

    The clipped score; of an answer that was cut off before an end, less `missing_end_penalty` by
    the rule `penalty`, and 0 by `bootstrap`, where the critic's value stands for it.
    """
    scores = scores_N.clamp(-ppo.score_clip, ppo.score_clip)
    if ppo.missing_end == "penalty":
        return scores - ppo.missing_end_penalty * ~ended_N
    return scores * ended_N if ppo.missing_end == "bootstrap" else scores


def overlong_penalty(tokens_N: Tensor, most: int, ppo: Ppo) -> Tensor:
    """Return what answers of so many tokens lose, of at most `most`: 0 or below, N.

    DAPO's soft punishment (Yu et al. 2025, equation 13), times w = `overlong_penalty`: with n
    tokens, L the most and c = `overlong_buffer`, 0 where n <= L - c, else w ((L - c) - n) / c.
    """
    over = (tokens_N - (most - ppo.overlong_buffer)).clamp(min=0)
    return -ppo.overlong_penalty * over / max(1, ppo.overlong_buffer)


def token_rewards(
    log_probs: Tensor,
    reference: Tensor,
    scores_N: Tensor,
    mask_NS: Tensor,
    prompt: int,
    ppo: Ppo,
    *,
    ended_N: Tensor | None = None,
    kl_weight: float | None = None,
) -> Tensor:
    """Return r = -kl k(logp - reference), the final score added at the answer's last token.

    The final score has what an overlong answer loses in it.
    N x (S - 1); zero after the answer's end; entries before the answer are of no use. Where the
    divergence is in the loss, r has none. `kl_weight` is the weight of this step, `ppo.kl` if it
    is not given; `ended_N` says which answers have an end, all if it is not given.
    `dschat_compat` puts the score one place later where an answer ends early, onto padding, as
    DeepSpeed-Chat does.
    """
    weight = ppo.kl if kl_weight is None else kl_weight
    if ppo.kl_in == "loss":
        weight = 0.0
    rewards = -weight * divergence(log_probs - reference, ppo.kl_estimator)
    count = rewards.shape[1]
    last = last_answer_token(mask_NS, prompt) - 1  # its transition
    if ppo.dschat_compat:
        last = (last + 1).clamp(max=count - 1)
    places = torch.arange(count, device=rewards.device)[None]
    inside = places <= last[:, None]
    ended = torch.ones_like(scores_N, dtype=torch.bool) if ended_N is None else ended_N
    scores = final_scores(scores_N, ended, ppo)
    if ppo.overlong_buffer:
        tokens = mask_NS[:, prompt:].sum(1).to(scores.dtype)
        scores = scores + overlong_penalty(tokens, mask_NS.shape[1] - prompt, ppo)
    return rewards * inside + scores[:, None] * (places == last[:, None])


class Advantages(NamedTuple):
    """Of the answer's transitions, N x (S - L)."""

    advantages: Tensor
    returns: Tensor


def advantages_of(
    values: Tensor,
    rewards: Tensor,
    mask_NS: Tensor,
    prompt: int,
    ppo: Ppo,
    beyond_N: Tensor | None = None,
) -> Advantages:
    """Return generalised advantages and returns; `values` and `rewards` are N x (S - 1).

    d_t = r_t + gamma V_{t+1} - V_t, A_t = d_t + gamma lam A_{t+1}, returns A + V. Both are zero
    after the answer's end, so that nothing is expected there; `beyond_N` is what is expected after
    the last place of all, of answers that fill the whole length without an end.
    """
    start, count = prompt - 1, values.shape[1]
    last = last_answer_token(mask_NS, prompt) - 1
    if ppo.dschat_compat:
        last = (last + 1).clamp(max=count - 1)
    inside = torch.arange(count, device=values.device)[None] <= last[:, None]
    values, rewards = values * inside, rewards * inside
    running = torch.zeros_like(values[:, 0])
    following = running if beyond_N is None else beyond_N
    found: list[Tensor] = []
    for j in reversed(range(start, count)):
        delta = rewards[:, j] + ppo.gamma * following - values[:, j]
        running = delta + ppo.gamma * ppo.lam * running
        found.append(running)
        following = values[:, j]
    advantages = torch.stack(found[::-1], 1)
    return Advantages(advantages, advantages + values[:, start:])


def _ratio(new: Tensor, old: Tensor, mask: Tensor, ppo: Ppo) -> Tensor:
    """Return new over old probability: a token's, or the geometric mean over its answer's."""
    apart = (new - old) * mask
    if ppo.ratio == "sequence":
        apart = (apart.sum(1) / mask.sum(1).clamp(min=1))[:, None].expand_as(apart)
    return apart.exp()


def _bounds(ppo: Ppo) -> tuple[float, float]:
    """Return the least and the largest ratio that is rewarded."""
    high = ppo.ratio_clip if ppo.ratio_clip_high is None else ppo.ratio_clip_high
    return 1 - ppo.ratio_clip, 1 + high


def actor_loss(
    new: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    ppo: Ppo,
    totals: Totals | None = None,
) -> Tensor:
    """Return the clipped surrogate loss over the learnt tokens, N x A.

    max(-A rho, -A clip(rho, 1 - c, 1 + c')), rho = exp(new - old), or by `ratio = "sequence"` the
    geometric mean of an answer's (GSPO, Zheng et al. 2025, equation 7). This and the losses below
    are these answers' share of the mean over the mini-batch of `totals`, or the mean over
    themselves.
    """
    ratio = _ratio(new, old, mask, ppo)
    clipped = ratio.clamp(*_bounds(ppo))
    losses = torch.maximum(-advantages * ratio, -advantages * clipped)
    return share_of_mean(losses, mask, ppo.loss_mean, totals)


def clipped_tokens(new: Tensor, old: Tensor, mask: Tensor, ppo: Ppo) -> Tensor:
    """Return how many learnt tokens have a ratio outside the clip."""
    ratio, (low, high) = _ratio(new, old, mask, ppo), _bounds(ppo)
    return (((ratio < low) | (ratio > high)) * mask).sum()


def critic_loss(
    new: Tensor,
    old: Tensor,
    returns: Tensor,
    mask: Tensor,
    ppo: Ppo,
    totals: Totals | None = None,
) -> Tensor:
    """Return half the clipped squared error of the values over the learnt tokens."""
    near = torch.minimum(torch.maximum(new, old - ppo.value_clip), old + ppo.value_clip)
    losses = torch.maximum((new - returns).square(), (near - returns).square())
    return 0.5 * share_of_mean(losses, mask, ppo.loss_mean, totals)


def divergence_loss(
    new: Tensor, reference: Tensor, mask: Tensor, ppo: Ppo, totals: Totals | None = None
) -> Tensor:
    """Return the estimated divergence from the reference over the learnt tokens, without weight."""
    return share_of_mean(
        divergence((new - reference) * mask, ppo.kl_estimator), mask, ppo.loss_mean, totals
    )
