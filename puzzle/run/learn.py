"""The losses of one mini-batch, micro-batch by micro-batch: shares of means over all replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.inputs.ppo import Ppo
from puzzle.run.experience import Experience
from puzzle.run.means import Totals, share_of_mean, totals_of
from puzzle.run.ppo import actor_loss, clipped_tokens, critic_loss, divergence_loss
from puzzle.run.sample import Drawn
from puzzle.run.stage import Stage, Tokens


class Seen:
    """What a step's losses came to on this rank, summed over mini-batches and epochs.

    Sums stay on the device while passes run: each one read would hold the host until its pass ends.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, part: Tensor) -> None:
        """Add a part of a sum."""
        part = part.detach().double()
        self.sums[name] = self.sums[name] + part if name in self.sums else part

    def read(self) -> dict[str, float]:
        """Return the sums, 0 where there were no parts."""
        told: dict[str, float] = dict.fromkeys(("actor", "critic", "entropy", "clipped"), 0.0)
        if self.sums:
            told |= dict(
                zip(self.sums, torch.stack(list(self.sums.values())).tolist(), strict=True)
            )
        return told


def rows_of(experience: Experience, rows: slice) -> Experience:
    """Return what is learnt of some sequences."""
    return Experience(*(part[rows] for part in experience))


def totals_over(
    experience: Experience, cuts: Sequence[slice], group: dist.ProcessGroup | None
) -> list[Totals]:
    """Return the totals of each mini-batch over all replicas; `cuts` are this replica's rows."""
    return totals_of([experience.mask[rows] for rows in cuts], group)


class Losses:
    """What the last stages make of a mini-batch's micro-batches."""

    def __init__(
        self,
        stages: Mapping[str, Stage],
        batches: Sequence[Tokens],
        experience: Experience,
        drawn: Drawn,
        totals: Totals,
        ppo: Ppo,
        kl_weight: float,
        seen: Seen,
    ) -> None:
        self.stages, self.batches, self.drawn = stages, batches, drawn
        self.experience, self.totals = experience, totals
        self.ppo, self.kl_weight, self.seen = ppo, kl_weight, seen

    def finish(self, model: str, batch: int, y: Tensor) -> Tensor:
        """Return a micro-batch's share of a model's loss."""
        rows = slice(batch * len(y), (batch + 1) * len(y))
        part = rows_of(self.experience, rows)
        loss = self._actor(batch, y, part, rows) if model == "actor" else self._critic(y, part)
        self.seen.add(model, loss)
        return loss

    def _critic(self, y: Tensor, part: Experience) -> Tensor:
        answer = part.mask.shape[1]
        new = self.stages["critic"].values(y)[:, -answer - 1 : -1]
        return critic_loss(new, part.values, part.returns, part.mask, self.ppo, self.totals)

    def _actor(self, batch: int, y: Tensor, part: Experience, rows: slice) -> Tensor:
        """Return surrogate + weight x divergence, where it is in the loss, - weight x entropy."""
        ppo, totals, stage = self.ppo, self.totals, self.stages["actor"]
        ids, drawn, answer = self.batches[batch].ids, self.drawn.rows(rows), part.mask.shape[1]
        entropies = None
        if ppo.entropy:
            new, entropies = stage.next_entropies(y, ids, drawn)
        else:
            new = stage.next_log_probs(y, ids, drawn)
        new = new[:, -answer:]
        loss = actor_loss(new, part.old, part.advantages, part.mask, ppo, totals)
        if ppo.kl_in == "loss" and self.kl_weight:
            apart = divergence_loss(new, part.reference, part.mask, ppo, totals)
            loss = loss + self.kl_weight * apart
        if entropies is not None:
            entropy = share_of_mean(entropies[:, -answer:], part.mask, ppo.loss_mean, totals)
            self.seen.add("entropy", entropy)
            loss = loss - ppo.entropy * entropy
        clipped = clipped_tokens(new.detach(), part.old, part.mask, ppo)
        self.seen.add("clipped", clipped.double() / totals.tokens)
        return loss
