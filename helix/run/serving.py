"""The running service: starts the machines, gives the head its lanes, and mends what breaks."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Literal

import msgspec

from common.errors import CaseError, InputError
from helix.plan.plans import Service
from helix.run.deploy import Deployment, Part, kinds_needed, same_holdings, shape_of
from helix.run.fleet import Fleet
from helix.run.head import Head
from helix.run.messages import Answer, Broken, Failed, Message, Refused
from helix.run.replan import Replanned, prepare, without
from helix.run.room import check_room
from helix.run.supervise import signature

log = logging.getLogger("helix")

WATCH_S = 0.5
RETRY_S = 2.0  # between attempts to start a machine again, or a task that died
RELINK_S = 0.5  # between attempts to make a link again
HURT_S = 5.0  # after a task died the service says so for so long, though it is there again

State = Literal["ok", "degraded", "draining", "down"]


class Serving:
    """One deployment at work."""

    def __init__(self, deployment: Deployment) -> None:
        """Prepare; `open` starts it."""
        serve = deployment.experiment.serve
        self.deployment, self.settings = deployment, serve
        settings = msgspec.structs.replace(serve, dtype=deployment.dtype)
        self.fleet = Fleet(settings, deployment.config, deployment.seed, self._heard, self._gone)
        self.head = Head(
            self.fleet.send,
            longest=deployment.config.longest,
            most_waiting=serve.most_waiting,
            patience_s=serve.patience_s,
            trace=serve.trace,
        )
        self.gone = set[int]()
        self.broken = set[tuple[int, int]]()
        """Links between machines, tail and head, that are made again."""
        self.faults = Counter[str]()
        """What died or erred and was mended, by its name."""
        self._hurt = -HURT_S
        self._restarting = set[int]()
        self.replans = 0
        self.services: tuple[Service, ...] = ()
        self.parts: dict[int, Part] = {}
        self.events: list[tuple[float, str]] = []
        self._change = asyncio.Lock()
        self._tasks = set[asyncio.Task[None]]()
        self._over = False

    async def open(self) -> None:
        """Start all machines and begin to serve."""
        plan, deployment = self.deployment.plan, self.deployment
        self.services, self.parts = plan.services, deployment.parts(plan.services)
        check_room(deployment, self.parts)
        await self.fleet.open(kinds_needed(self.parts))
        try:
            await asyncio.gather(*(self.fleet.start(part) for part in self.parts.values()))
        except _lost() as error:
            raise CaseError(f"a machine was lost while it loaded: {signature(error)}") from error
        await self.fleet.connect(deployment.wires(self.services))
        self.head.relane(deployment.lanes(self.services))
        for one in self.services:
            log.info("serving %s", shape_of(one))
        self._spawn("watch", self._watch)
        self._spawn("prepare", self._prepare, again=False)

    async def drain(self, seconds: float) -> None:
        """Take no more requests and let those at work end for so long."""
        self.head.closing = True
        until = time.monotonic() + seconds
        while self.head.books.open() and time.monotonic() < until:
            await asyncio.sleep(0.05)
        if self.head.books.open():
            log.warning("%d requests are ended unfinished", self.head.books.open())
            self.head.end_all("the service was shut down")

    async def close(self) -> None:
        """Stop everything; what is still at work fails."""
        self._over = self.head.closing = True
        self.head.end_all("the service was shut down")
        for task in [*self._tasks]:
            task.cancel()
        await self.fleet.close()

    @property
    def ready(self) -> bool:
        """Whether requests can be served now."""
        return bool(self.head.lanes) and not self.head.closing

    @property
    def state(self) -> State:
        """What the service is able to do; `degraded`: it serves, but a part of it is lost."""
        if self.head.closing:
            return "draining"
        if not self.ready:
            return "down"
        lost = self.gone or self.broken or time.monotonic() < self._hurt + HURT_S
        return "degraded" if lost else "ok"

    # --- machines and links come and go ---

    def _heard(self, message: Message) -> None:
        """Hand on what a machine says; an error of the head's own ends this request only."""
        if isinstance(message, Broken):
            self._unlinked(message.tail, message.head, message.why)
            return
        try:
            self.head.heard(message)
        except Exception as error:
            self.fault("head", error)
            if isinstance(message, Answer | Refused | Failed):
                request = self.head.running.get(message.key.request)
                if request is not None:
                    self.head.fail(request, signature(error))

    def _unlinked(self, tail: int, head: int, why: str) -> None:
        """Make a link between two machines again, unless one of them is lost."""
        if self._over or (tail, head) in self.broken:
            return
        self._note(f"the link from machine {tail} to machine {head} is lost: {why}")
        self.faults["link"] += 1
        self.broken.add((tail, head))
        self.head.broken(tail, head)
        self._spawn("relink", partial(self._relink, tail, head))

    async def _relink(self, tail: int, head: int) -> None:
        await asyncio.sleep(RELINK_S)
        async with self._change:
            self.broken.discard((tail, head))
            if {tail, head} <= self.fleet.workers.keys():
                wires = self.deployment.wires(self.services)
                await self.fleet.connect([wire for wire in wires if wire.tail == tail])
                self._note(f"the link from machine {tail} to machine {head} is made again")
        self.head.pump()

    def _gone(self, machine: int) -> None:
        if machine in self.fleet.workers and not self._over:
            self._note(f"machine {machine} is lost")
            self.fleet.forget(machine)
            self.gone.add(machine)
            self.head.lost(machine)
            self._spawn("replan", self._without)

    async def _without(self) -> None:
        """Serve on with the machines that are left, and start the lost ones again."""
        async with self._change:
            await self._apply(await self._replanned())
        for machine in sorted(self.gone - self._restarting) if self.settings.restart else ():
            self._restarting.add(machine)
            self._spawn("restart", partial(self._restart, machine))

    async def _replanned(self) -> Replanned:
        deployment, gone = self.deployment, sorted(self.gone)
        if not gone:
            return Replanned(deployment.plan.services, moved=False)
        return await asyncio.to_thread(
            without, deployment.question, deployment.plan, gone, deployment.seed
        )

    async def _apply(self, found: Replanned) -> None:
        """Let the machines hold what the services say, then route by them."""
        self.replans += 1
        deployment = self.deployment
        parts = deployment.parts(found.services)
        stay = same_holdings(self.parts, parts)
        moving = [part for machine, part in parts.items() if machine not in stay]
        if any(part.machine in self.fleet.workers for part in moving):
            self.head.relane([], keep=False)  # what is at work waits until the layers have moved
        await asyncio.gather(*(self._move(p) for p in moving if p.machine in self.fleet.workers))
        self.services = found.services
        await self.fleet.connect(deployment.wires(found.services))
        self.head.relane(deployment.lanes(found.services))
        said = "; ".join(shape_of(one) for one in found.services) or "nothing can be served"
        self._note(f"planned again without {sorted(self.gone)}: {said}")

    async def _move(self, part: Part) -> None:
        """Let a machine hold other layers; one that is lost meanwhile is told by `_gone`."""
        self.parts.pop(part.machine, None)
        with contextlib.suppress(*_lost()):
            await self.fleet.load(part)
            self.parts[part.machine] = part

    async def _restart(self, machine: int) -> None:
        """Start a lost machine until it is there, then plan with it again."""
        planned = self.deployment.parts(self.deployment.plan.services)
        part = planned.get(machine) or self.parts.get(machine)
        while part is not None and not self._over:
            try:
                await self.fleet.start(part)
            except (InputError, OSError, *_lost()) as error:
                log.warning("machine %d does not start again: %s", machine, error)
                self.fleet.forget(machine)
                await asyncio.sleep(RETRY_S)
            async with self._change:
                if machine in self.fleet.workers:  # else it was lost again
                    self._restarting.discard(machine)
                    self.gone.discard(machine)
                    self.parts[machine] = part
                    self._note(f"machine {machine} is back")
                    await self._apply(await self._replanned())
                    return

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            self.head.watch()

    async def _prepare(self) -> None:
        await asyncio.to_thread(prepare, self.deployment.question, self.deployment.seed)

    def _note(self, what: str) -> None:
        log.warning("%s", what)
        self.events.append((time.time(), what))

    def _spawn(self, name: str, work: Callable[[], Awaitable[None]], *, again: bool = True) -> None:
        """Do the work in a task of its own; if it dies, tell, and begin it again."""
        task = asyncio.get_running_loop().create_task(self._supervised(name, work, again=again))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _supervised(
        self, name: str, work: Callable[[], Awaitable[None]], *, again: bool
    ) -> None:
        while not self._over:
            try:
                return await work()
            except Exception as error:
                self.fault(name, error)
                if not again:
                    return None
                await asyncio.sleep(RETRY_S)
        return None

    def fault(self, name: str, error: Exception) -> None:
        """Take note of what died or erred in a part of the service that goes on."""
        log.error("%s: %s", name, signature(error), exc_info=error)
        self.faults[name] += 1
        self._hurt = time.monotonic()


def _lost() -> tuple[type[Exception], ...]:
    """Return what Ray raises when a worker's process is gone."""
    from ray.exceptions import RayError

    return (RayError,)


@contextlib.asynccontextmanager
async def served(deployment: Deployment) -> AsyncIterator[Serving]:
    """Serve within the block; nothing is left running after it."""
    serving = Serving(deployment)
    try:
        await serving.open()
        yield serving
    finally:
        await serving.close()
