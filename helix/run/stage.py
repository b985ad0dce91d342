"""One machine's layers at work: batches of passes through one layer at a time."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from common.errors import InputError
from helix.inputs.profile import KV_BLOCK_TOKENS
from helix.run import decoder, weights
from helix.run.decoder_config import DecoderConfig
from helix.run.kv_pool import KvPool
from helix.run.messages import Key, Sampling
from helix.run.sampling import Drawing, Drawn, draw, prompt_scored

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Holding(NamedTuple):
    """What a machine is to hold, and where."""

    first: int
    end: int
    kv_entries: int
    """Capacity of the KV cache in tokens times layers."""
    folder: str = ""
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"


class Item:
    """A pass of one request while it is on this machine."""

    def __init__(self, key: Key, layers: range, begin: int, count: int, *, prompt: bool) -> None:
        """Begin before its first layer here; `layers` are numbered as in the model."""
        self.key, self.layers, self.begin, self.count, self.prompt = (
            key, layers, begin, count, prompt
        )  # fmt: skip
        self.x_TD: torch.Tensor = torch.empty(0)


class Stage:
    """Layers, their weights and their KV cache on one device."""

    def __init__(self, config: DecoderConfig, holding: Holding) -> None:
        """Load the weights and make the cache."""
        self.config, self.holding = config, holding
        self.device, self.dtype = torch.device(holding.device), DTYPES[holding.dtype]
        self.weights = weights.load(
            config, holding.first, holding.end, holding.folder, holding.seed,
            self.device, self.dtype,
        )  # fmt: skip
        blocks = holding.kv_entries // KV_BLOCK_TOKENS
        if blocks < 1:
            raise InputError(f"a KV cache of {holding.kv_entries} entries has no block")
        self.pool = KvPool(
            blocks, holding.end - holding.first, config.longest, config.kv_heads,
            config.head_size, self.device, self.dtype,
        )  # fmt: skip
        self.drawings = dict[Key, Drawing]()
        self._joined: tuple[list[Item], torch.Tensor, decoder.Layout] | None = None

    def admit(self, item: Item) -> None:
        """Reserve what the pass needs of the KV cache, or raise `PoolIsFull`."""
        held = range(item.layers.start - self.holding.first, item.layers.stop - self.holding.first)
        self.pool.reserve(item.key, held, item.begin + item.count)

    def embed(self, item: Item, ids: list[int]) -> None:
        """Give the item its activations before the first layer."""
        if self.weights.embedding is None:
            raise ValueError("this machine does not hold the first layer")
        item.x_TD = decoder.embed(ids, self.weights.embedding, self.config.embedding_scale)

    @torch.inference_mode()
    def layer(self, number: int, items: Sequence[Item]) -> None:
        """Take all items through a layer of the model; prompts have to come first."""
        x_TD, batch = self._join(items)
        first = self.holding.first
        mine = self.weights.layers[number - first]
        x_TD = decoder.decoder_layer(x_TD, mine, self.config, self.pool, number, first, batch)
        self._joined = (list(items), x_TD, batch)
        if any(item.layers.stop == number + 1 for item in items):
            self._part()

    def probe(self) -> None:
        """Raise if the device no longer computes, as a GPU does after some errors."""
        if torch.ones(2, device=self.device).sum().item() != 2:
            raise RuntimeError(f"{self.device} computes wrongly")

    def _join(self, items: Sequence[Item]) -> tuple[torch.Tensor, decoder.Layout]:
        """Return the batch as one tensor; it is kept from the last layer if it is the same."""
        if self._joined is not None and self._joined[0] == list(items):
            return self._joined[1:]
        self._part()
        batch = decoder.layout(
            self.config,
            [item.count for item in items if item.prompt],
            [self.pool.row(item.key) for item in items],
            [item.begin for item in items],
            self.device,
            self.dtype,
        )
        return torch.cat([item.x_TD for item in items]), batch

    def _part(self) -> None:
        """Give every item of the last batch its own activations back."""
        if self._joined is not None:
            items, x_TD, _ = self._joined
            for item, part in zip(items, x_TD.split([i.count for i in items]), strict=True):
                item.x_TD = part
        self._joined = None

    def begin(self, key: Key, how: Sampling, asked: int, past: Sequence[int]) -> None:
        """Keep how an attempt's tokens are to be chosen (`sampling.Drawing`)."""
        vocabulary = self.config.vocabulary
        self.drawings[key] = Drawing(how, asked, past, vocabulary, self.device)

    def release(self, key: Key) -> None:
        """Forget an attempt and free what it holds."""
        self.pool.release(key)
        self.drawings.pop(key, None)

    @torch.inference_mode()
    def tokens(self, items: Sequence[Item]) -> list[Drawn]:
        """Return the next token of each item that has left the last layer."""
        drawings = [self.drawings[item.key] for item in items]
        prompts = [  # before anything is noted as drawn: what raises here is computed again
            prompt_scored(drawing, item.x_TD, self._scores)
            if item.prompt and drawing.how.prompt_logprobs >= 0
            else []
            for drawing, item in zip(drawings, items, strict=True)
        ]
        scores = self._scores(torch.stack([item.x_TD[-1] for item in items]))
        drawn = draw(scores, drawings, [item.begin + item.count for item in items])
        return [one._replace(prompt=told) for one, told in zip(drawn, prompts, strict=True)]

    def _scores(self, x_RD: torch.Tensor) -> torch.Tensor:
        norm, head = self.weights.norm, self.weights.head
        if norm is None or head is None:
            raise ValueError("this machine does not hold the last layer")
        return decoder.logits(x_RD, norm, head, self.config).float()
