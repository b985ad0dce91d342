"""DAPO's dynamic sampling: prompts whose answers are all scored alike are replaced by others.

Their answers have no advantage over each other, so they only make the batch smaller (Yu et al.
2025, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from puzzle.run.generate import Answers
from puzzle.run.rows import Row


class Batch(NamedTuple):
    """All replicas' answers of a batch, prompt by prompt, the same on every rank."""

    answers: Answers
    scores: Tensor
    """N, as the rewards said; empty where they are not known yet."""
    rows: list[Row]
    """Of the data set, by answer."""

    def of(self, chosen: Tensor) -> Batch:
        """Return some answers."""
        rows = [self.rows[at] for at in chosen.tolist()]
        return Batch(Answers(*(x[chosen] for x in self.answers)), self.scores[chosen], rows)


def teaching(scores_N: Tensor, samples: int) -> Tensor:
    """Say of each answer whether those to its prompt are scored otherwise than alike, N."""
    by_prompt = scores_N.view(-1, samples)
    return (by_prompt.amax(1) > by_prompt.amin(1)).repeat_interleave(samples)


def filled(draw: Callable[[int], Batch], most: int, samples: int) -> tuple[Batch, int]:
    """Return a batch of prompts that teach, of at most `most` draws, and how many replaced others.

    `draw(i)` generates the i-th batch. Prompts that teach come first, in the order of their draws,
    and what is missing then is filled with the first of the others.
    """
    first = draw(0)
    size, drawn = len(first.rows), [first]
    teaches = [teaching(first.scores, samples)]
    while sum(int(some.sum()) for some in teaches) < size and len(drawn) < most:
        drawn.append(draw(len(drawn)))
        teaches.append(teaching(drawn[-1].scores, samples))
    every = Batch(
        Answers(*(torch.cat(parts) for parts in zip(*(b.answers for b in drawn), strict=True))),
        torch.cat([batch.scores for batch in drawn]),
        [row for batch in drawn for row in batch.rows],
    )
    found = torch.cat(teaches)
    chosen = torch.cat([found.nonzero()[:, 0], (~found).nonzero()[:, 0]])[:size]
    return every.of(chosen), int(found[chosen].sum() - teaches[0].sum()) // samples
