"""The next token of every request of a batch: penalties, filters and the draw, on the device.

Shapes: R requests, V vocabulary. A draw depends on seed and position only: a request that is
computed again goes on as before, whatever else is in its batch. The order of what changes the
scores is that of other servers: bias, bans, penalties, temperature, min_p, top_k, top_p.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from helix.run.messages import Sampling, Scored

NEVER = float("-inf")
MASK, GOLDEN = (1 << 64) - 1, 0x9E3779B97F4A7C15
PROMPT_ROWS = 128  # of a prompt that are scored at a time


class Drawn(NamedTuple):
    """A token, and what is told of it and of the prompt where that is asked for."""

    token: int
    scored: Scored | None = None
    prompt: list[Scored] = []  # noqa: RUF012 - nobody changes it


class Drawing:
    """How one request's tokens are drawn, and which it has already."""

    def __init__(
        self, how: Sampling, asked: int, past: Sequence[int], vocabulary: int, device: torch.device
    ) -> None:
        """Begin an attempt; `past` are its tokens, the first `asked` of them the client's.

        `past` may be empty where neither penalties nor the prompt's scores are asked for.
        """
        self.how, self.asked = how, asked
        self.device = device
        self.prompt = self._ids(past[:asked])
        self.counts_V = self.seen_V = None
        if how.penalized:
            self.counts_V = torch.zeros(vocabulary, device=device)
            answer = self._ids(past[asked:])
            self.counts_V.index_add_(0, answer, torch.ones(len(answer), device=device))
            self.seen_V = torch.zeros(vocabulary, device=device, dtype=torch.bool)
            self.seen_V[self._ids(past)] = True

    def _ids(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor(ids, device=self.device, dtype=torch.int64)  # an empty one too

    def add(self, token: int) -> None:
        """Take note of a token that was drawn."""
        if self.counts_V is not None and self.seen_V is not None:
            self.counts_V[token] += 1
            self.seen_V[token] = True

    def changed(self, scores_V: torch.Tensor, position: int) -> torch.Tensor:
        """Return the scores with the request's bias, bans and penalties.

        The penalties are those of CTRL (Keskar et al. 2019, section 4.1) and of the OpenAI
        interface: one times the count of a token in the answer, one for its being there.
        """
        how, scores_V = self.how, scores_V.clone()
        if how.bias:
            ids, amounts = zip(*how.bias, strict=True)
            scores_V[self._ids(ids)] += torch.tensor(amounts, device=self.device)
        if position - self.asked < how.least:
            scores_V[self._ids(how.banned)] = NEVER
        if self.counts_V is not None and self.seen_V is not None:
            less = torch.where(scores_V > 0, scores_V / how.repetition, scores_V * how.repetition)
            scores_V = torch.where(self.seen_V, less, scores_V)
            scores_V -= how.frequency * self.counts_V + how.presence * (self.counts_V > 0)
        return scores_V


def draw(
    scores_RV: torch.Tensor, drawings: Sequence[Drawing], positions: Sequence[int]
) -> list[Drawn]:
    """Return the next token of each request; `positions` are theirs.

    Raises:
        ValueError: scores are no numbers.
    """
    best_R, tokens_R = scores_RV.max(-1)
    if not torch.isfinite(best_R).all():
        raise ValueError("the model's scores are not finite")
    changed = scores_RV
    rows = [r for r, one in enumerate(drawings) if one.how.changes]
    if rows:
        changed = scores_RV.clone()
        changed[rows] = torch.stack([drawings[r].changed(scores_RV[r], positions[r]) for r in rows])
        tokens_R[rows] = changed[rows].argmax(-1)
    warm = [r for r, one in enumerate(drawings) if one.how.temperature > 0]
    if warm:
        hows = [drawings[r].how for r in warm]
        tokens_R[warm] = _sampled(changed[warm], hows, [positions[r] for r in warm])
    tokens: list[int] = tokens_R.tolist()
    told = [r for r, one in enumerate(drawings) if one.how.logprobs >= 0]
    found = _scored(scores_RV[told], tokens_R[told], [drawings[r].how.logprobs for r in told])
    scored = dict(zip(told, found, strict=True))
    for one, token in zip(drawings, tokens, strict=True):
        one.add(token)
    return [Drawn(token, scored.get(r)) for r, token in enumerate(tokens)]


def _sampled(
    scores_RV: torch.Tensor, hows: Sequence[Sampling], positions: Sequence[int]
) -> torch.Tensor:
    """Return a token of each row, drawn by the inverse of its distribution function."""
    device = scores_RV.device
    warmth = torch.tensor([how.temperature for how in hows], device=device)[:, None]
    scores_RV = (scores_RV - scores_RV.amax(-1, keepdim=True)) / warmth
    rows = [r for r, how in enumerate(hows) if how.filters]
    if rows:
        scores_RV[rows] = _filtered(scores_RV[rows], [hows[r] for r in rows])
    below_RV = torch.softmax(scores_RV, -1).double().cumsum(-1)
    even = [uniform(how.seed, position) for how, position in zip(hows, positions, strict=True)]
    at = torch.tensor(even, device=device, dtype=torch.float64)[:, None] * below_RV[:, -1:]
    found = torch.searchsorted(below_RV, at, right=True).squeeze(-1)
    return found.clamp_(max=scores_RV.shape[-1] - 1)


def _filtered(scores_RV: torch.Tensor, hows: Sequence[Sampling]) -> torch.Tensor:
    """Return scores without the tokens that min_p, top_k and top_p leave out; the best stays."""
    device, size = scores_RV.device, scores_RV.shape[-1]
    ranked_RV, ids_RV = scores_RV.sort(descending=True, stable=True)
    least = torch.tensor([how.min_p for how in hows], device=device)[:, None].log()
    most = torch.tensor([how.top_k or size for how in hows], device=device)[:, None]
    share = torch.tensor([how.top_p for how in hows], device=device)[:, None]
    rank = torch.arange(size, device=device)[None]
    kept_RV = (ranked_RV >= least) & (rank < most)  # the best has score 0 here
    chances_RV = torch.softmax(ranked_RV.masked_fill(~kept_RV, NEVER), -1)
    kept_RV &= chances_RV.cumsum(-1) - chances_RV < share
    kept_RV[:, 0] = True
    return scores_RV.scatter(-1, ids_RV, ranked_RV.masked_fill(~kept_RV, NEVER))


def uniform(seed: int, position: int) -> float:
    """Return a number of [0, 1) that depends on seed and position (SplitMix64's finalizer)."""
    return (_mixed(_mixed(seed & MASK) + position * GOLDEN & MASK) >> 11) / (1 << 53)


def _mixed(x: int) -> int:
    x = (x + GOLDEN) & MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31


def _scored(scores_RV: torch.Tensor, tokens_R: torch.Tensor, most: Sequence[int]) -> list[Scored]:
    """Return log probabilities of the tokens and of the likeliest, before any change to them."""
    if not most:
        return []
    logs_RV = torch.log_softmax(scores_RV, -1)
    own = logs_RV.gather(-1, tokens_R[:, None]).squeeze(-1).tolist()
    best, ids = logs_RV.topk(min(max(most), logs_RV.shape[-1]), -1)
    rows = zip(own, ids.tolist(), best.tolist(), most, strict=True)
    return [Scored(log, list(zip(likely, logs, strict=True))[:k]) for log, likely, logs, k in rows]


def prompt_scored(
    drawing: Drawing, x_TD: torch.Tensor, logits: Callable[[torch.Tensor], torch.Tensor]
) -> list[Scored]:
    """Return the scores of a prompt's tokens from the second on; `x_TD` left the last layer."""
    following, most = drawing.prompt[1:], drawing.how.prompt_logprobs
    found = list[Scored]()
    for begin in range(0, len(following), PROMPT_ROWS):
        tokens = following[begin : begin + PROMPT_ROWS]
        scores = logits(x_TD[begin : begin + len(tokens)])
        found += _scored(scores, tokens, [most] * len(tokens))
    return found
