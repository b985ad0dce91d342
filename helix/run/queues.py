"""What waits on a machine: a queue for each layer it holds, batches taken as the simulator does.

The machine works on one layer at a time. A batch is taken greedily in order of arrival, passing
over what does not fit; after a layer the machine goes on to the next one that has work.
"""

from typing import Generic, Protocol, TypeVar

from helix.inputs.profile import Limits
from helix.run.messages import Key


class Waits(Protocol):
    """What a batch is made of."""

    key: Key
    layers: range
    begin: int
    count: int
    prompt: bool


T = TypeVar("T", bound=Waits)


class LayerQueues(Generic[T]):
    """The queues of layers [first, end)."""

    def __init__(self, first: int, end: int, limits: Limits) -> None:
        """Begin empty, at the first layer."""
        self.first, self.limits = first, limits
        self._queues: list[list[T]] = [[] for _ in range(first, end)]
        self._at = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return sum(map(len, self._queues))

    def put(self, item: T) -> None:
        """Queue an item for the first layer it needs."""
        self._queues[item.layers.start - self.first].append(item)

    def take(self) -> tuple[int, list[T]]:
        """Return the next layer with work and its batch, prompts first; empty if nothing waits."""
        if not self._queues[self._at]:
            self._march()
        batch, left = self._fitting(self._queues[self._at])
        self._queues[self._at] = left
        return self.first + self._at, sorted(batch, key=lambda item: not item.prompt)

    def finish(self, layer: int, batch: list[T]) -> list[T]:
        """Queue a batch for the next layer and return those that need no more here."""
        gone = [item for item in batch if item.layers.stop == layer + 1]
        stay = [item for item in batch if item.layers.stop > layer + 1]
        if stay:
            self._queues[layer + 1 - self.first] += stay
        self._march()
        return gone

    def drop(self, keys: set[Key]) -> None:
        """Forget items of these attempts."""
        self._queues = [[i for i in queue if i.key not in keys] for queue in self._queues]

    def _march(self) -> None:
        held = len(self._queues)
        ahead = ((self._at + step) % held for step in range(1, held))
        self._at = next((layer for layer in ahead if self._queues[layer]), self._at)

    def _fitting(self, queue: list[T]) -> tuple[list[T], list[T]]:
        limits, batch, left = self.limits, list[T](), list[T]()
        prompts = prompt_tokens = decodes = context = 0
        for item in queue:
            if item.prompt:
                fits = (
                    prompts < limits.prompt_requests
                    and prompt_tokens + item.count <= limits.prompt_tokens
                )
                prompts, prompt_tokens = prompts + fits, prompt_tokens + item.count * fits
            else:
                fits = (
                    decodes < limits.decode_requests
                    and context + item.begin <= limits.context_tokens
                )
                decodes, context = decodes + fits, context + item.begin * fits
            # What fits into no batch is one by itself: a long request has to be served some time.
            (batch if fits or not batch else left).append(item)
        return batch, left
