"""One decode step on buffers that stay where they are, so that a CUDA graph can hold it.

An eager step starts some twenty kernels a layer, and decoding waits for their launches rather than
for memory (specification section 7). A graph launches all at once. It fixes addresses and shapes:
ids, positions, the mask and the place in the cache are read from tensors that every step refills,
and attention goes over the whole length, what is not written yet masked.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from puzzle.run.layers import Cache
from puzzle.run.stage import Stage, Tokens

Decoding = Literal["grown", "static", "graph"]
"""With a mask that grows, the same step on static buffers, or that step as a CUDA graph."""

_WARM_UP = 2
"""Steps before the capture, in which libraries allocate what they keep."""


class StaticCache(Cache):
    """Keys and values, written at the place that a tensor says; all of them are returned."""

    at: Tensor

    def add(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store one token's keys and values and return all, written or not."""
        self.keys[layer].index_copy_(2, self.at, key)
        self.values[layer].index_copy_(2, self.at, value)
        return self.keys[layer], self.values[layer]


def static_mask(valid_NS: Tensor, at: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what the token at `at` may not see as a large negative number, N x 1 x 1 x S."""
    place = torch.arange(valid_NS.shape[1], device=valid_NS.device)[None]
    seen = (place <= at) & valid_NS.bool() | (place == at)
    blocked = torch.zeros(seen.shape, dtype=dtype, device=valid_NS.device)
    return blocked.masked_fill(~seen, torch.finfo(dtype).min)[:, None, None]


class StaticStep:
    """A single-stage model's decode step for one block of sequences, captured where asked for.

    The prompt must be in `cache` already; its tensors are used where they are.
    """

    def __init__(self, stage: Stage, cache: Cache, rows: int, length: int, *, graph: bool) -> None:
        some = next(iter(cache.keys.values()))
        device = some.device
        self.stage, self.dtype = stage, some.dtype
        self.cache = StaticCache.__new__(StaticCache)
        self.cache.keys, self.cache.values = cache.keys, cache.values
        self.cache.at = self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.positions = torch.zeros_like(self.ids)
        self.valid = torch.zeros(rows, length, dtype=torch.long, device=device)
        self.graph: Any = None
        self.wanted = graph

    def run(self, tokens: Tokens, begin: int) -> Tensor:
        """Return the last hidden states N x 1 x H of the tokens at place `begin`."""
        self.ids.copy_(tokens.ids)
        self.positions.copy_(tokens.positions)
        self.valid[:, : begin + 1].copy_(tokens.valid)
        self.at.fill_(begin)
        if self.wanted and self.graph is None:
            self._capture()
        if self.graph is None:
            return self._step()
        self.graph.replay()
        return self.hidden.clone()

    def _step(self) -> Tensor:
        mask = static_mask(self.valid, self.at, self.dtype)
        return self.stage.forward(
            None, Tokens(self.ids, self.valid, self.positions), self.cache, mask
        )

    def _capture(self) -> None:
        """Capture the step; steps done to warm up write what the step itself writes again."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.hidden = self._step()
        self.graph = graph
