"""A machine at work, readable: a queue for each layer it holds, one batch at a time."""

import msgspec

from helix.simulate.schedulers import Query
from helix.simulate.switches import Switches
from helix.simulate.system import System

CONCATENATED_BYTES_PER_S, COPIED_BYTES_PER_S = 4e9, 5e9  # of arrived activations


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What a node works on, and for how long."""

    layer: int
    prompt_tokens: int
    decodes: int
    seconds: float


class Node:
    """One machine; layers are counted from its first."""

    def __init__(self, system: System, place: int, switches: Switches) -> None:
        """Begin idle at the first layer."""
        self.system, self.place, self.switches = system, place, switches
        self.held = int(system.end[place] - system.first[place])
        self.queues = [list[Query]() for _ in range(max(self.held, 1))]
        self.at = 0
        self.batch: list[Query] = []
        self.buffered = 0  # tokens that arrived and are not yet on the accelerator
        self.kv = self.kv_peak = 0
        self.busy_s = 0.0

    @property
    def waiting_first(self) -> int:
        """How many wait for the first layer."""
        return len(self.queues[0])

    def receive(self, query: Query, layer: int) -> None:
        """Queue a request for the layer it needs first."""
        self.queues[layer - int(self.system.first[self.place])].append(query)
        self.buffered += query.tokens

    def start(self) -> Batch | None:
        """Take the next batch; None if there is no work or the node is busy."""
        if self.batch:
            return None
        if not self.queues[self.at]:
            self._march()
        if not self.queues[self.at]:
            return None
        self._take_batch()
        prompt_tokens = sum(query.tokens for query in self.batch if query.done == 0)
        decodes = sum(query.done > 0 for query in self.batch)
        return Batch(
            layer=int(self.system.first[self.place]) + self.at,
            prompt_tokens=prompt_tokens,
            decodes=decodes,
            seconds=self._seconds(prompt_tokens, decodes),
        )

    def finish(self) -> list[Query]:
        """End the layer; return the batch if it was the last, else queue it for the next."""
        done, self.batch = self.batch, []
        self.kv += sum(query.tokens for query in done)
        self.kv_peak = max(self.kv_peak, self.kv)
        last = self.at == self.held - 1
        if not last:
            self.queues[self.at + 1] += done
        self._march()
        return done if last else []

    def free(self, query: Query, entry: int) -> None:
        """Free the KV entries of a finished query."""
        self.kv -= (query.input + query.output) * (int(self.system.end[self.place]) - entry)

    def note_busy(self, now: float, seconds: float, begin: float, end: float) -> None:
        """Add the part of a batch's time that lies in the window."""
        self.busy_s += max(0.0, min(now + seconds, end) - max(now, begin))

    def _march(self) -> None:
        """Go on to the next layer, cyclically, that has work; stay where there is none."""
        ahead = [(self.at + step) % self.held for step in range(1, self.held)]
        self.at = next((layer for layer in ahead if self.queues[layer]), self.at)

    def _take_batch(self) -> None:
        """Fill the batch in order, passing over what does not fit."""
        s, place = self.system, self.place
        prompts = prompt_tokens = decodes = context = 0
        left = list[Query]()
        for query in self.queues[self.at]:
            past = query.input + query.done - 1
            if query.done == 0:
                fits = (
                    prompts < s.prompt_requests[place]
                    and prompt_tokens + query.input <= s.prompt_tokens[place]
                )
                prompts, prompt_tokens = prompts + fits, prompt_tokens + query.input * fits
            else:
                fits = (
                    decodes < s.decode_requests[place] and context + past <= s.context_tokens[place]
                )
                decodes, context = decodes + fits, context + past * fits
            (self.batch if fits else left).append(query)
        self.queues[self.at] = left

    def _seconds(self, prompt_tokens: int, decodes: int) -> float:
        kind = self.system.kind[self.place]
        decode_s = float(self.system.decode_s[kind, decodes])
        if decodes == 1:
            least = float(self.system.least_decode_s[kind])
            decode_s = decode_s * 2 if self.switches.doubled_single_decode else max(decode_s, least)
        seconds = float(self.system.prompt_s[kind, prompt_tokens]) + decode_s
        if self.at == 0:
            arrived = float(self.buffered * self.system.activation_bytes)
            seconds += arrived / CONCATENATED_BYTES_PER_S + arrived / COPIED_BYTES_PER_S
            self.buffered = 0
        return seconds
