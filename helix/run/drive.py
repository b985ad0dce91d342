"""The experiment's own workload against the running service, measured as the simulator does.

The driver stands where the simulator's coordinator does: the same lengths in the same order, the
same rule to feed offline queries, the same window. Prompts are random tokens.
"""

import asyncio
import random
import time
from collections import Counter

import msgspec
import numpy as np

from helix.inputs.requests import Arrival, Request, azure_lengths
from helix.plan.plans import Service
from helix.run.lane import FEED
from helix.run.request import Ask, NotNow, Running, Token
from helix.run.serving import Serving
from helix.simulate.asked import asked_of, longest
from helix.simulate.metrics import Floats
from helix.simulate.workload import STAGGER_S, Offline, Online, warm_up_s


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one service did in the window; seconds, sorted."""

    window_s: float
    prompt_s: Floats
    decode_s: Floats
    sent: int
    finished: int
    rejected: int
    failed: int

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens decoded in the window, each second."""
        return len(self.decode_s) / self.window_s


class Driver:
    """Asks one service for what the workload says."""

    def __init__(self, serving: Serving, one: Service, seed: int) -> None:
        """Prepare to ask; nothing is sent yet."""
        experiment = serving.deployment.experiment
        self._serving, self._name = serving, one.name
        asked, services = serving.deployment.question, serving.deployment.plan.services
        limits = longest(services, asked.cluster, asked.model, asked.profiles)
        self._workload = asked_of(experiment.workload, services, limits, seed).workloads[one.name]
        self._by_flow = experiment.workload.scheduler == "maxflow" and one.flow > 0
        self._draw, self._ids = random.Random(seed), random.Random(seed + 1)
        self._vocabulary = serving.deployment.config.vocabulary
        self._prompt_s, self._decode_s = list[float](), list[float]()
        self._rejected, self._ended = 0, Counter[str]()
        self._mine = set[int]()
        self._feeding = set[asyncio.TimerHandle]()

    async def run(self) -> Measured:
        """Ask from now on, to the end of the window."""
        head, workload = self._serving.head, self._workload
        begin = time.monotonic()
        self._from = begin + warm_up_s(workload)
        self._until = self._from + workload.duration_s
        head.on_token.append(self._token)
        head.on_end.append(self._end)
        try:
            if isinstance(workload, Offline):
                await self._offline(workload, begin)
            else:
                await self._online(workload, begin)
        finally:
            head.on_token.remove(self._token)
            head.on_end.remove(self._end)
        for request in [*head.running.values(), *head.waiting]:
            if request.number in self._mine:
                head.cancel(request)
        return Measured(
            window_s=workload.duration_s,
            prompt_s=np.sort(np.array(self._prompt_s)),
            decode_s=np.sort(np.array(self._decode_s)),
            sent=len(self._mine) + self._rejected,
            finished=self._ended["served"],
            rejected=self._rejected,
            failed=self._ended["failed"],
        )

    async def _offline(self, workload: Offline, begin: float) -> None:
        for i in range(workload.initial):
            self._later(begin + STAGGER_S * i)
        await asyncio.sleep(self._until - time.monotonic())
        for timer in self._feeding:
            timer.cancel()

    async def _online(self, workload: Online, begin: float) -> None:
        for arrival in workload.arrivals:
            await asyncio.sleep(begin + arrival.time_s - time.monotonic())
            self._ask(arrival)
        await asyncio.sleep(self._until - time.monotonic())

    def _later(self, when: float) -> None:
        """Draw a query and ask it at a time, unless the window is over by then."""
        lengths = azure_lengths()
        drawn = lengths[self._draw.randint(0, len(lengths) - 1)]
        if when < self._until:
            timer = asyncio.get_running_loop().call_later(
                max(0.0, when - time.monotonic()), self._ask, drawn
            )
            self._feeding.add(timer)

    def _ask(self, drawn: Arrival | Request) -> None:
        ids = [self._ids.randrange(self._vocabulary) for _ in range(drawn.input)]
        # The simulator's answers have `output` decodes after the token that the prompt gives.
        patient = isinstance(self._workload, Online)
        ask = Ask(ids=ids, most=drawn.output + 1, lane=self._name, patient=patient)
        try:
            self._mine.add(self._serving.head.submit(ask).number)
        except NotNow:
            self._rejected += 1

    def _token(self, request: Running, token: Token) -> None:
        if request.number not in self._mine:
            return
        first = len(request.tokens) == 1
        if self._from <= token.back <= self._until:
            latency = token.back - (request.came if first else token.sent)
            (self._prompt_s if first else self._decode_s).append(latency)
        if first:
            self._feed(finished=False)

    def _end(self, request: Running, outcome: str) -> None:
        if request.number not in self._mine:
            return
        self._ended[outcome] += 1
        if outcome == "served":
            self._feed(finished=True)

    def _feed(self, *, finished: bool) -> None:
        if not isinstance(self._workload, Offline):
            return
        head = self._serving.head
        room = head.bottleneck(self._name) <= FEED if self._by_flow else finished
        if room:
            self._later(time.monotonic() + STAGGER_S)


async def drive(serving: Serving, seed: int) -> dict[str, Measured]:
    """Run the workload on every service at once and return what each did."""
    services = serving.deployment.plan.services
    done = await asyncio.gather(*(Driver(serving, one, seed).run() for one in services))
    return {one.name: measured for one, measured in zip(services, done, strict=True)}
