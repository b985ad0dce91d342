"""A paged KV cache: one pool of blocks for all layers that a machine holds.

A block keeps the keys and values of `BLOCK` tokens in one layer. A request in the cache has a row
of block tables, one table for each layer it passes here. Shapes: P blocks, B tokens of a block,
K heads of keys and values, H values of a head, N requests, S slots of the longest of them.
"""

import torch

from helix.inputs.profile import KV_BLOCK_TOKENS as BLOCK
from helix.run.messages import Key

MOST_ROWS = 4096


class PoolIsFull(Exception):
    """There is no block left; the request has to be computed again later."""


class KvPool:
    """Blocks, who has which, and what is in them."""

    def __init__(
        self, blocks: int, layers: int, longest: int, kv_heads: int, head_size: int,
        device: torch.device, dtype: torch.dtype,
    ) -> None:  # fmt: skip
        """Begin empty; `longest` is the most tokens of a request."""
        shape = (blocks, BLOCK, kv_heads, head_size)
        self.keys_PBKH = torch.zeros(shape, device=device, dtype=dtype)
        self.values_PBKH = torch.zeros(shape, device=device, dtype=dtype)
        rows = min(MOST_ROWS, max(1, blocks))
        self.tables = torch.zeros((rows, layers, -(-longest // BLOCK)), dtype=torch.int64)
        self._free = list(range(blocks))
        self._free_rows = list(range(rows))
        self._held = dict[Key, tuple[int, range, list[list[int]]]]()
        self.blocks = blocks

    @property
    def used(self) -> int:
        """Blocks in use."""
        return self.blocks - len(self._free)

    @property
    def requests(self) -> int:
        """Requests that hold blocks."""
        return len(self._held)

    def reserve(self, key: Key, layers: range, tokens: int) -> None:
        """Let a request have room for so many tokens on these layers, counted from the first held.

        Raises:
            PoolIsFull: there are too few blocks; nothing has changed then.
        """
        if key not in self._held:
            if not self._free_rows:
                raise PoolIsFull
            self._held[key] = (self._free_rows.pop(), layers, [[] for _ in layers])
        row, layers, tables = self._held[key]
        more = -(-tokens // BLOCK) - len(tables[0])
        if more <= 0:
            return
        if more * len(layers) > len(self._free):
            if not tables[0]:
                self.release(key)
            raise PoolIsFull
        for layer, table in zip(layers, tables, strict=True):
            begin = len(table)
            table += [self._free.pop() for _ in range(more)]
            self.tables[row, layer, begin : begin + more] = torch.tensor(table[begin:])

    def release(self, key: Key) -> None:
        """Free all blocks of a request; one that holds none is passed over."""
        row, _, tables = self._held.pop(key, (-1, range(0), []))
        if row >= 0:
            self._free_rows.append(row)
            for table in tables:
                self._free += table

    def row(self, key: Key) -> int:
        """Return the row of a request's tables."""
        return self._held[key][0]

    def write(
        self, layer: int, rows: torch.Tensor, positions: torch.Tensor,
        keys_TKH: torch.Tensor, values_TKH: torch.Tensor,
    ) -> None:  # fmt: skip
        """Put away keys and values of tokens, each of its row's request at its position."""
        blocks = self.tables[rows, layer, positions // BLOCK]
        slots = (blocks * BLOCK + positions % BLOCK).to(self.keys_PBKH.device)
        self.keys_PBKH.flatten(0, 1)[slots] = keys_TKH
        self.values_PBKH.flatten(0, 1)[slots] = values_TKH

    def read(
        self, layer: int, rows: torch.Tensor, longest: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values [N, S, K, H] of requests; beyond a request's tokens is anything.

        `longest` is the most tokens that one of them has; S is it, rounded up to blocks.
        """
        blocks = self.tables[rows, layer, : -(-longest // BLOCK)].to(self.keys_PBKH.device)
        return self.keys_PBKH[blocks].flatten(1, 2), self.values_PBKH[blocks].flatten(1, 2)
