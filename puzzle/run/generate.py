"""Pipelined generation with a KV cache, in the generation layout.

Blocks of `decode_micro_batch` sequences go round the ring of stages; prompts enter in parts of
`prefill_micro_batch`. The last stage tells each block's new tokens to all stages, so every stage
knows where text ends, and a block whose answers have all ended is passed over by all alike: one
place later than it could be, so that the host reads of it what the device has found by then.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.inputs.ppo import Sampling
from puzzle.inputs.workload import Workload
from puzzle.run.decode import Decoding, StaticStep
from puzzle.run.flag import Flag
from puzzle.run.groups import Groups
from puzzle.run.layers import Cache
from puzzle.run.links import Directions, Sender, post
from puzzle.run.sample import Drawn, distribution, packed, pick
from puzzle.run.stage import Stage, Tokens


class Prompts(NamedTuple):
    """A replica's prompts, left-padded: ids and which are real, N x L; numbers of the sequences."""

    ids: Tensor
    valid: Tensor
    numbers: Tensor


class Special(NamedTuple):
    """Ids of padding and of the tokens that end an answer."""

    pad: int
    ends: tuple[int, ...]

    def ending(self, tokens: Tensor) -> Tensor:
        """Say which tokens end an answer."""
        found = torch.zeros_like(tokens, dtype=torch.bool)
        for end in self.ends:  # by numbers, which need no copy to the device
            found |= tokens == end
        return found


class Answers(NamedTuple):
    """Whole sequences N x S, which tokens are real, and log-probabilities of the answers."""

    ids: Tensor
    valid: Tensor
    log_probs: Tensor
    """N x A, of the distribution drawn from, wide; 0 after an answer's end."""
    kept: Tensor
    """N x A x B: the tokens drawn from, packed as in `Drawn`; B is 0 where no cut is made."""

    def drawn(self, sampling: Sampling) -> Drawn:
        """Return the distribution that the answers were drawn from."""
        return Drawn(sampling.temperature, self.kept if sampling.cuts else None)

    def ended(self, prompt: int, special: Special) -> Tensor:
        """Say which answers have an end token, N; the others were cut off."""
        answer = slice(prompt, None)
        return (special.ending(self.ids[:, answer]) & self.valid[:, answer].bool()).any(1)


class _Block:
    """One micro-batch on one stage."""

    def __init__(
        self,
        stage: Stage,
        prompts: Prompts,
        length: int,
        dtype: torch.dtype,
        *,
        pad: int,
        cuts: bool,
    ) -> None:
        n, prompt = prompts.ids.shape
        self.prompts = prompts
        self.ids = torch.cat([prompts.ids, prompts.ids.new_full((n, length - prompt), pad)], 1)
        self.valid = torch.cat([prompts.valid, prompts.valid.new_zeros(n, length - prompt)], 1)
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        self.log_probs = torch.zeros(n, length - prompt, dtype=kind, device=prompts.ids.device)
        # After an answer's end all tokens are left, so that none has probability 0.
        bits = packed(torch.ones(stage.model.vocabulary * cuts, dtype=torch.bool))
        self.kept = bits.to(prompts.ids.device).repeat(n, length - prompt, 1)
        self.cache: Cache = stage.new_cache(n, length, dtype)
        self.ended = torch.zeros(n, dtype=torch.bool, device=prompts.ids.device)
        self.all_ended: list[Flag] = []
        """Of the last two places that were drawn."""
        self.over = False
        self.hidden: list[Tensor] = []
        self.step: StaticStep | None = None


class Generator:
    """Generates for one replica; all its ranks call `run` with the same prompts."""

    def __init__(
        self,
        stage: Stage,
        groups: Groups,
        directions: Directions,
        work: Workload,
        sampling: Sampling,
        special: Special,
        seed: int,
        dtype: torch.dtype,
        decoding: Decoding = "grown",
    ) -> None:
        self.stage, self.groups, self.directions = stage, groups, directions
        self.work, self.sampling, self.special, self.seed = work, sampling, special, seed
        self.dtype, self.pipeline = dtype, groups.layout.pipeline
        self.others = [groups.rank(p) for p in range(self.pipeline - 1)]
        self.end = groups.rank(self.pipeline - 1)
        self.decoding = decoding

    @torch.no_grad()
    def run(self, prompts: Prompts) -> Answers:
        """Return this replica's answers, on every rank of it."""
        self.sender = Sender(self.directions)
        size = self.work.decode_micro_batch
        parts = zip(*(x.split(size) for x in prompts), strict=True)
        length, pad, cuts = self.work.length, self.special.pad, self.sampling.cuts
        blocks = [
            _Block(self.stage, Prompts(*p), length, self.dtype, pad=pad, cuts=cuts) for p in parts
        ]
        for block in blocks:
            self._prefill(block)
        for begin in range(self.work.prompt, self.work.length - 1):
            for block in blocks:
                if self._next_tokens(block, begin):
                    self._decode(block, begin)
        for block in blocks:
            self._next_tokens(block, self.work.length - 1)
        for block in blocks:
            self._share_noted(block)
        self.sender.drain()
        return Answers(*(torch.cat([getattr(b, n) for b in blocks]) for n in Answers._fields))

    def _prefill(self, block: _Block) -> None:
        part, rows = self.work.prefill_micro_batch, len(block.ids)
        for first in range(0, rows, part):
            chosen = slice(first, min(first + part, rows))
            valid = block.prompts.valid[chosen]
            positions = (valid.long().cumsum(1) - 1).clamp(min=0)
            block.cache.rows, block.cache.begin = chosen, 0
            y = self._forward(block, Tokens(block.prompts.ids[chosen], valid, positions))
            if self.stage.last:
                block.hidden.append(y[:, -1])
        block.cache.rows = slice(None)
        if self.stage.last:
            self._choose(block, torch.cat(block.hidden), self.work.prompt)

    def _decode(self, block: _Block, begin: int) -> None:
        """Run the tokens at `begin`; the last stage chooses those after them."""
        valid = block.valid[:, : begin + 1]
        positions = (valid.long().sum(1, keepdim=True) - 1).clamp(min=0)
        tokens = Tokens(block.ids[:, begin : begin + 1], valid, positions)
        if self.decoding == "grown":
            block.cache.begin = begin
            y = self._forward(block, tokens)
        else:
            y = self._static(block).run(tokens, begin)
        if self.stage.last:
            self._choose(block, y[:, -1], begin + 1)

    def _static(self, block: _Block) -> StaticStep:
        """Return a block's step on static buffers; a graph is captured for these weights only."""
        if block.step is None:
            graph = self.decoding == "graph"
            rows, length = block.ids.shape
            block.step = StaticStep(self.stage, block.cache, rows, length, graph=graph)
        return block.step

    def _forward(self, block: _Block, tokens: Tokens) -> Tensor:
        p, x = self.groups.place.stage, None
        if not self.stage.first:
            shape = (*tokens.ids.shape, self.stage.model.hidden)
            x = torch.empty(shape, dtype=self.dtype, device=tokens.ids.device)
            post(self.directions, self.groups.rank(p - 1), x).wait()
        y = self.stage.forward(x, tokens, block.cache)
        if not self.stage.last:
            self.sender.send(self.groups.rank(p + 1), y)
        return y

    def _choose(self, block: _Block, hidden_NH: Tensor, place: int) -> None:
        """Draw the tokens of a place, note them, and tell them to the other stages."""
        logits = distribution(self._whole(self.stage.logits(hidden_NH)), self.sampling)
        numbers = block.prompts.numbers
        tokens = pick(logits, self.seed, numbers, torch.full_like(numbers, place))
        chosen = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        at = place - self.work.prompt
        block.log_probs[:, at] = chosen * ~block.ended
        if self.sampling.cuts:
            bits = packed(logits > -torch.inf)
            block.kept[:, at] = bits.where(~block.ended[:, None], block.kept[:, at])
        tokens = tokens.where(~block.ended, torch.full_like(tokens, self.special.pad))
        for rank in self.others:
            self.sender.send(rank, tokens)
        self._note(block, tokens, place)

    def _next_tokens(self, block: _Block, place: int) -> bool:
        """Have the tokens of a place; say whether those after them are drawn."""
        if block.over:
            return False  # the last stage has drawn none
        if not self.stage.last:
            tokens = torch.empty_like(block.prompts.numbers)
            post(self.directions, self.end, tokens).wait()
            self._note(block, tokens, place)
        block.over = len(block.all_ended) > 1 and block.all_ended[-2].read()
        return not block.over

    def _note(self, block: _Block, tokens: Tensor, place: int) -> None:
        block.ids[:, place] = tokens
        block.valid[:, place] = (~block.ended).to(block.valid.dtype)
        if self.sampling.stop_at_end:
            block.ended |= self.special.ending(tokens)
            block.all_ended = [*block.all_ended[-1:], Flag(block.ended.all())]

    def _whole(self, logits: Tensor) -> Tensor:
        """Return the logits of the whole vocabulary on every slice."""
        group = self.groups.tensor
        if group is None:
            return logits
        parts = [torch.empty_like(logits) for _ in range(self.groups.layout.tensor)]
        dist.all_gather(parts, logits.contiguous(), group=group)
        ranks = sorted(self._slice_ranks())
        return torch.cat([parts[ranks.index(r)] for r in self._slice_ranks()], -1)

    def _slice_ranks(self) -> list[int]:
        p, d, _ = self.groups.place
        return [self.groups.rank_at(p, d, number) for number in range(self.groups.layout.tensor)]

    def _share_noted(self, block: _Block) -> None:
        """Bring what the last stage noted of the draws to every stage."""
        noted = [block.log_probs, *([block.kept] if self.sampling.cuts else [])]
        for values in noted:
            if not self.stage.last:
                post(self.directions, self.end, values).wait()
                continue
            for rank in self.others:
                self.sender.send(rank, values)


def gather_replicas(answers: Answers, groups: Groups) -> Answers:
    """Return all replicas' answers in the order of the batch, on every rank."""
    if groups.data is None:
        return answers
    ranks = groups.data_ranks()
    order = [sorted(ranks).index(rank) for rank in ranks]
    made: list[Tensor] = []
    for mine in answers:
        if not mine.numel():  # no cuts: nothing is kept
            made.append(torch.cat([mine] * len(ranks)))
            continue
        parts = [torch.empty_like(mine) for _ in ranks]
        dist.all_gather(parts, mine.contiguous(), group=groups.data)
        made.append(torch.cat([parts[i] for i in order]))
    return Answers(*made)
