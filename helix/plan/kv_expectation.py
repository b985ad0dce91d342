"""How full the KV caches are expected to become, before any token is there (paper, section 5).

A query is expected to fill its prompt and a mean answer on every layer it uses; a machine takes
no query that would carry it over its high-water mark, and the coordinator feeds new ones while
the fullest layer has room. The simulator and the serving host use the same rules.
"""

from collections.abc import Sequence

import msgspec

ANSWER_TOKENS = 240  # the mean answer


class Holding(msgspec.Struct, frozen=True):
    """What a place holds: layers [start, end) and its KV capacity in tokens times layers."""

    start: int
    end: int
    kv_entries: int

    @property
    def layers(self) -> int:
        """How many layers it holds."""
        return self.end - self.start


class KvExpectation:
    """Expected free KV entries of every place."""

    def __init__(
        self, holdings: Sequence[Holding], high_water: float, answer_part: float = 1.0
    ) -> None:
        """Start with empty caches; `answer_part` scales the mean answer."""
        self.holdings = holdings
        self.high_water = high_water
        self.answer_part = answer_part
        self.free = [holding.kv_entries for holding in holdings]

    def expected_tokens(self, prompt_tokens: int) -> int:
        """Return how long the query is expected to become."""
        return int(prompt_tokens + ANSWER_TOKENS * self.answer_part)

    def accepts(self, place: int, prompt_tokens: int) -> bool:
        """Say whether a place has room for the query on all its layers, below the mark."""
        holding = self.holdings[place]
        left = self.free[place] - self.expected_tokens(prompt_tokens) * holding.layers
        return left >= (1 - self.high_water) * holding.kv_entries

    def take(self, uses: Sequence[tuple[int, int]], prompt_tokens: int) -> None:
        """Reserve a query's entries on its route of (place, layers used)."""
        for place, layers in uses:
            self.free[place] -= self.expected_tokens(prompt_tokens) * layers

    def give_back(self, uses: Sequence[tuple[int, int]], prompt_tokens: int) -> None:
        """Release them when the query's last token is back."""
        for place, layers in uses:
            self.free[place] += self.expected_tokens(prompt_tokens) * layers

    def bottleneck(self) -> float:
        """Return the expected use of the fullest layer, as a part of all places that hold it."""
        layers = range(max(holding.end for holding in self.holdings))
        return max((self._use(layer) for layer in layers), default=0.0)

    def _use(self, layer: int) -> float:
        free = capacity = 0.0
        for holding, left in zip(self.holdings, self.free, strict=True):
            if holding.start <= layer < holding.end:
                free += left / holding.layers
                capacity += holding.kv_entries / holding.layers
        return 1 - free / capacity if capacity > 0 else 0.0
