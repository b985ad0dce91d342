"""Time that passes only where nobody has anything to do: real code of the service, no clock."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple, TypeVar

from beta.run.line import Line
from beta.run.pipeline import Pipeline, Work
from beta.run.speeds import StageSeconds

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: it tells the loop how long it would have waited."""

    passed: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits for somebody else"
            self.passed(max(timeout, 0))
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.at = 0.0
        selector = _Selector()
        selector.passed = self._pass
        super().__init__(selector)

    def time(self) -> float:
        return self.at

    def _pass(self, seconds: float) -> None:
        # To the next timer itself: the sum of a time and a difference would miss it by an ulp.
        timers: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        due = [timer.when() for timer in timers if not timer.cancelled()]
        self.at = max(self.at, min(due)) if seconds and due else self.at + seconds


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine from time 0 on."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


class Device:
    """A stage that takes as long as it takes, one piece of work after the other."""

    def __init__(self, seconds: Callable[[Work, float], float]) -> None:
        self.seconds, self.free = seconds, asyncio.Lock()
        self.busy_s = 0.0

    async def do(self, work: Work) -> None:
        async with self.free:
            took = 0.0 if work.skip else self.seconds(work, asyncio.get_running_loop().time())
            self.busy_s += took
            await asyncio.sleep(took)


class Answer(NamedTuple):
    """What became of a request."""

    admitted: bool
    served: bool
    in_time: bool
    at: float


class Group:
    """A pipeline over devices."""

    def __init__(self, line: Line, devices: Iterable[Device]) -> None:
        self.line, self.devices = line, list(devices)
        self.pipeline = Pipeline(line, self._call, self._broken)

    async def _call(self, stage: int, work: Work) -> list[tuple[float, ...]]:
        await self.devices[stage].do(work)
        return [()] * len(work.tokens)

    def _broken(self, error: Exception) -> None:
        raise error

    async def ask(self, model: int, slo_s: float) -> Answer:
        now = self.pipeline.now()
        answer = self.pipeline.ask(model, [1], now + slo_s)
        if answer is None:
            return Answer(False, False, False, now)
        logits = await answer
        at = self.pipeline.now()
        return Answer(True, logits is not None, logits is not None and at <= now + slo_s, at)

    async def put(self, asked: Iterable[tuple[int, float, float]]) -> list[Answer]:
        """Ask for (model, time, seconds that it has), whatever becomes of those before."""
        tasks = list[asyncio.Task[Answer]]()
        for model, at, slo_s in asked:
            await asyncio.sleep(at - self.pipeline.now())
            tasks.append(asyncio.create_task(self.ask(model, slo_s)))
        return list(await asyncio.gather(*tasks))


def played(
    line: Line, real: StageSeconds, asked: Iterable[tuple[int, float, float]]
) -> list[Answer]:
    """Return what becomes of requests where each stage really takes so long."""
    devices = [
        Device(lambda work, _, stage=stage: real[work.model][len(work.tokens)][stage])
        for stage in range(len(line.stages))
    ]
    return run(Group(line, devices).put(asked))
