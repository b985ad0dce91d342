"""A group's line in time: hands work to the stages, moves it on, answers who waits for it.

It knows nothing of Ray: `call` has a stage (all of its `op` workers) do a piece of work. The clock
is the event loop's, which is the monotonic one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from beta.run.line import Batch, Line, Request

Logits = tuple[float, ...]
Call = Callable[[int, "Work"], Awaitable[Sequence[Logits]]]
"""Has a stage do a piece of work; of the last stage, returns each request's logits."""


class Work(NamedTuple):
    """What a stage is to do."""

    model: int
    tokens: list[list[int]]
    """Of each request of the batch."""
    taken_at: float
    """When the last of them was taken on."""
    skip: bool = False
    """Only take the activations from the stage before: the batch was dropped."""


class Pipeline:
    """One group's stages as its manager sees them."""

    def __init__(self, line: Line, call: Call, broken: Callable[[Exception], None]) -> None:
        self.line, self.call, self.broken = line, call, broken
        self._asked = dict[Request, tuple[list[int], float]]()
        """Tokens, and when it was taken on."""
        self._work = dict[Batch, Work]()
        self._answers = dict[Request, asyncio.Future[Logits | None]]()
        self._last = dict[int, asyncio.Task[None]]()
        """The latest piece of work of each stage."""
        self.progress = 0.0
        """When a stage was last done, or was first given work after a pause."""

    @staticmethod
    def now() -> float:
        """Return the time of the running loop, seconds."""
        return asyncio.get_running_loop().time()

    def ask(
        self, model: int, tokens: list[int], deadline: float
    ) -> asyncio.Future[Logits | None] | None:
        """Admit a request and return its logits to come, None for one dropped on its way.

        None instead of the future where it is not admitted.
        """
        now = self.now()
        idle = not self.line.outstanding
        request = self.line.admit(model, now, deadline)
        if request is None:
            return None
        if idle:
            self.progress = now
        self._asked[request] = (tokens, now)
        future = self._answers[request] = asyncio.get_running_loop().create_future()
        self._feed()
        return future

    def stalled_s(self) -> float:
        """Return for how long no stage was done beyond ten times what the slowest work takes."""
        if not self.line.outstanding:
            return 0.0
        return self.now() - self.progress - 10 * self.line.longest_s()

    def _feed(self) -> None:
        """Hand every stage what it has room for, the last stage first."""
        now, dropped = self.now(), list[Request]()
        for stage in reversed(range(len(self.line.stages))):
            while (batch := self.line.take(stage, now, dropped)) is not None:
                if stage == 0:
                    self._work[batch] = self._work_of(batch)
                work = self._work[batch]._replace(skip=batch.dropped)
                before = self._last.get(stage)
                doing = self._carry_out(stage, batch, work, before)
                self._last[stage] = asyncio.create_task(doing)
        for request in dropped:
            self._finish(request, None)

    def _work_of(self, batch: Batch) -> Work:
        tokens, taken = zip(*(self._asked[request] for request in batch.requests), strict=True)
        return Work(batch.model, list(tokens), max(taken))

    async def _carry_out(
        self, stage: int, batch: Batch, work: Work, before: asyncio.Task[None] | None
    ) -> None:
        try:
            answers = await self.call(stage, work)
        except Exception as error:
            self.broken(error)
            return
        if before is not None:  # done before, but perhaps not yet told of
            await asyncio.wait({before})
        self.progress = self.now()
        self.line.done(stage, batch, self.progress)
        if stage + 1 == len(self.line.stages) or batch.dropped:
            del self._work[batch]
            if not batch.dropped:
                for request, logits in zip(batch.requests, answers, strict=True):
                    self._finish(request, logits)
        self._feed()

    def _finish(self, request: Request, logits: Logits | None) -> None:
        del self._asked[request]
        future = self._answers.pop(request)
        if not future.done():  # nobody waits for it where the group was given up
            future.set_result(logits)
