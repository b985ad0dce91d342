"""A worker's loop: take in what arrived, batch it, compute one layer, send on what is done.

What raises while a batch is computed is tried again by itself; what raises by itself fails, and the
head is told. The loop ends, and with it the process, only when the device no longer computes.
"""

import logging
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeVar

import torch

from helix.inputs.profile import Limits
from helix.run.kv_pool import PoolIsFull
from helix.run.messages import HEAD, Answer, Failed, Free, Key, Mark, Message, Pass, Refused
from helix.run.pace import Clock, Pace
from helix.run.queues import LayerQueues
from helix.run.stage import Item, Stage
from helix.run.supervise import signature

log = logging.getLogger("helix")

MOST_DROPPED = 100_000  # attempts that are remembered as done
MOST_SPANS = 200_000

Send = Callable[[int, Message, memoryview | bytes], None]
T = TypeVar("T")


class Work(Item):
    """An item with the message that brought it."""

    def __init__(self, message: Pass) -> None:
        """Begin at the message's stop."""
        stop = message.way[message.hop]
        super().__init__(
            message.key,
            range(stop.begin, stop.end),
            message.begin,
            message.count,
            prompt=message.prompt,
        )
        self.message = message
        self.arrived = time.time()


class BatchSpan(NamedTuple):
    """One batch in one layer; seconds since the epoch."""

    machine: int
    layer: int
    begin: float
    seconds: float
    prompt_tokens: int
    decodes: int


class Engine:
    """The loop of one stage; `run` in a thread of its own, `put` from any."""

    def __init__(
        self, machine: int, stage: Stage, limits: Limits, pace: Pace | None, send: Send,
        dropped: dict[Key, None] | None = None,
    ) -> None:  # fmt: skip
        """Begin with nothing to do; `dropped` are attempts known to be done."""
        self.machine, self.stage, self._send = machine, stage, send
        self.clock = Clock(pace)
        self.queues = LayerQueues[Work](stage.holding.first, stage.holding.end, limits)
        self.dropped = {} if dropped is None else dropped
        self.spans: list[BatchSpan] | None = None
        self._inbox = SimpleQueue[tuple[Message, bytearray] | None]()

    def put(self, message: Message, payload: bytearray) -> None:
        """Take a message in."""
        self._inbox.put((message, payload))

    def stop(self) -> None:
        """End the loop before its next batch."""
        self._inbox.put(None)

    def run(self) -> None:
        """Work until told to stop."""
        while self._take_in():
            layer, batch = self.queues.take()
            if batch:
                self._compute(layer, batch)
            else:
                self.clock.idle()

    def _take_in(self) -> bool:
        """Handle all that has arrived, waiting if there is nothing to do; False ends the loop."""
        wait = not self.queues
        if wait:
            self.clock.idle()
        while True:
            try:
                one = self._inbox.get(block=wait)
            except Empty:
                return True
            if one is None:
                return False
            message, payload = one
            if isinstance(message, Pass):
                self._received(message, payload)
            elif isinstance(message, Free):
                self._free(message.keys)
            wait = False

    def _received(self, message: Pass, payload: bytearray) -> None:
        try:
            self._arrived(message, payload)
        except Exception as error:
            self._fail(message.key, error)

    def _arrived(self, message: Pass, payload: bytearray) -> None:
        if message.key in self.dropped:
            return
        work = Work(message)
        try:
            self.stage.admit(work)
        except PoolIsFull:
            why = "the KV cache is full"
            self._send(HEAD, Refused(message.key, self.machine, why), b"")
            return
        if message.hop == 0:
            self.stage.embed(work, message.ids)
        else:
            flat = torch.frombuffer(payload, dtype=self.stage.dtype)
            work.x_TD = flat.view(message.count, -1).to(self.stage.device)
        if message.sampling is not None and work.layers.stop == self.stage.config.layers:
            self.stage.begin(message.key, message.sampling, message.asked, message.past)
        self.queues.put(work)

    def _free(self, keys: list[Key]) -> None:
        for key in keys:
            self.stage.release(key)
            self.dropped[key] = None
        while len(self.dropped) > MOST_DROPPED:
            del self.dropped[next(iter(self.dropped))]
        self.queues.drop(set(keys))

    def _compute(self, layer: int, batch: list[Work]) -> None:
        self.clock.begin()
        began = time.time()
        last_layer = layer + 1 == self.stage.config.layers
        through = [work for work, _ in self._each(batch, lambda some: self._through(layer, some))]
        leaving = [work for work in through if work.layers.stop == layer + 1]
        drawn = self._each(leaving, self.stage.tokens) if last_layer else []
        prompt_tokens = sum(work.count for work in batch if work.prompt)
        decodes = sum(not work.prompt for work in batch)
        seconds = self.clock.end(prompt_tokens, decodes)
        if self.spans is not None and len(self.spans) < MOST_SPANS:
            self.spans.append(
                BatchSpan(self.machine, layer, began, seconds, prompt_tokens, decodes)
            )
        self.queues.finish(layer, through)
        for work, one in drawn:
            now, marks = time.time(), self._marks(work)
            self._send(HEAD, Answer(work.key, one.token, now, marks, one.scored, one.prompt), b"")
        for work in [] if last_layer else leaving:
            self._each([work], self._pass_on)

    def _each(
        self, batch: list[Work], compute: Callable[[list[Work]], list[T]]
    ) -> list[tuple[Work, T]]:
        """Return what is computed of a batch, without the work that raises an error by itself."""
        if not batch:
            return []
        try:
            return list(zip(batch, compute(batch), strict=True))
        except Exception as error:
            if len(batch) == 1:
                self._fail(batch[0].key, error)
                return []
            log.warning("each of a batch of %d alone: %s", len(batch), signature(error))
        return [pair for work in batch for pair in self._each([work], compute)]

    def _fail(self, key: Key, error: Exception) -> None:
        """Tell the head that a pass cannot be computed; raise if nothing can be."""
        log.error("request %d: %s", key.request, signature(error), exc_info=error)
        self.stage.probe()
        self._send(HEAD, Failed(key, self.machine, signature(error)), b"")

    def _through(self, layer: int, batch: list[Work]) -> list[None]:
        self.stage.layer(layer, batch)
        return [None] * len(batch)

    def _marks(self, work: Work) -> list[Mark]:
        mark = Mark(self.machine, work.message.sent, work.arrived, time.time())
        return [*work.message.marks, mark]

    def _pass_on(self, batch: list[Work]) -> list[None]:
        (work,) = batch
        message = work.message
        payload = work.x_TD.contiguous().cpu().view(torch.uint8).numpy().reshape(-1).data
        message.marks = self._marks(work)
        message.hop += 1
        message.ids = []
        message.sent = time.time()
        self._send(message.way[message.hop].machine, message, payload)
        return [None]
