"""The controller: sends each request to a group, tries again where one is lost, keeps the books.

It knows nothing of HTTP; `service` makes one Ray actor of it and the endpoint. Dispatch is the
simulator's rule: the model's group with the fewest outstanding requests, or, where requests run
together, where one is likeliest to join a batch.
"""

import asyncio
import time
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group

from beta.run.books import Answer, Books, Totals
from beta.run.group import GroupManager
from beta.run.specs import Deployment, GroupSpec, Ready, Reply
from beta.run.text import Tokenizers
from beta.simulate.admission import NOBODY, least_outstanding, together

GATHER_S = 60.0
"""Seconds until a cluster that cannot give the devices is told of."""
LEAST_REBUILD_S = 1.0
MOST_LOST = 3
"""So many groups lost under one request, and it fails: it may be what ends them."""
MUCH = 1.3
"""So many times the profile's latency at the start, and it is told."""
CROWDED = "as many requests as may wait already wait for a group to be built anew"
LATE = "no answer by the deadline"
PAUSE_S = 2.0
"""Between two attempts to build a group."""


class Group:
    """A group as the controller sees it."""

    def __init__(self, spec: GroupSpec) -> None:
        self.spec = spec
        self.bundles: Any = None
        self.manager: Any = None
        self.ready: Ready | None = None
        self.scale: dict[int, float] | None = None
        self.least_s = {model: spec.alone_s(model) for model in spec.stage_s}
        """Seconds in which it answers each model, nothing else in it: the least known of."""
        self.build_s = LEAST_REBUILD_S


class Controller:
    """Groups, books and dispatch of one service, in an asynchronous actor."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.books = Books()
        self.tokenizers = Tokenizers(deployment.models)
        self.groups = [Group(spec) for spec in deployment.groups]
        self.outstanding = np.zeros(len(self.groups), np.int64)
        self.own = np.zeros((len(deployment.models), len(self.groups)), np.int64)
        """Outstanding by model and group."""
        specs = [spec.stage_s[m] for spec in deployment.groups for m in spec.models]
        self.most = max((size for batches in specs for size in batches), default=1)
        """The largest batch of any group."""
        self.number = {model.name: m for m, model in enumerate(deployment.models)}
        self.hosts = [
            np.array([g.number for g in deployment.groups if m in g.models], np.int64)
            for m in range(len(deployment.models))
        ]
        # Compiled now: the first request must not wait for it.
        least_outstanding(np.zeros(1, np.int64), self.outstanding)
        together(np.zeros(1, np.int64), self.outstanding, self.own[0], self.most)
        self.waiting = 0
        """Requests that wait until a group is built anew."""
        self.changed = asyncio.Event()
        self.opened = self.draining = False
        self.events = list[tuple[float, str]]()
        self.tasks = set[asyncio.Task[None]]()

    async def build(self) -> None:
        """Build all groups, and anew whenever one is lost."""
        await asyncio.gather(*(self._gather(group) for group in self.groups))
        await asyncio.gather(*(self._build(group) for group in self.groups))
        for group in self.groups:  # one after the other: what is measured is each group alone
            await self._open(group)
        for group in self.groups:
            self._keep(self._watch(group))

    async def submit(self, model: int, tokens: list[int], slo_s: float | None) -> Answer:
        """Answer a request within its latency target (or the service's time limit)."""
        begun = _now()
        spec = self.deployment.models[model]
        limit = slo_s if slo_s is not None else spec.slo_s
        self.books.receive()
        seconds = self.deployment.timeout_s if limit is None else limit
        answer = self._refusal(model, seconds)
        if answer is None:
            try:
                answer = await self._answer(model, tokens, begun + seconds)
            except Exception as error:  # whatever it is, this request is over and counted
                why = f"an error of the service: {type(error).__name__}"
                self._say(f"a request for {spec.name}: {why}: {error}")
                answer = Answer("failed", 500, why)
        self.books.answer(spec.name, answer, _now() - begun)
        return answer

    @property
    def serves(self) -> bool:
        """Whether requests are taken: outputs were compared, and it is not ending."""
        return self.opened and not self.draining

    async def check(self, model: int, tokens: list[int], seconds: float) -> Answer:
        """Answer a request that is no part of the books: the service is not open yet."""
        return await self._answer(model, tokens, _now() + seconds)

    async def sample(self, model: int) -> float:
        """Return by how much a layer of the model is off the reference's, in any of its groups."""
        groups = [self.groups[number] for number in self.hosts[model]]
        return max([await group.manager.sample.remote(model) for group in groups])

    async def open(self) -> None:
        """Take requests from now on: outputs have been compared."""
        self.opened = True

    def _idle_s(self, model: int) -> float:
        """Return the least seconds in which a group answers this model, nothing else in it."""
        groups = (self.groups[number] for number in self.hosts[model])
        return min(group.least_s[model] for group in groups)

    def _refusal(self, model: int, seconds: float) -> Answer | None:
        """Return what can be said at once, whatever groups do; None where one has to be asked."""
        if not self.opened:
            return Answer("rejected", 503, "the service is starting")
        if self.draining:
            return Answer("rejected", 503, "the service is ending")
        if not len(self.hosts[model]):
            return Answer("rejected", 503, "no group holds this model")
        # A target so short might pass before a group could refuse it.
        if seconds - self.deployment.margin_s < self._idle_s(model):
            return Answer("rejected", 429, "the answer would come too late")
        return None

    async def _answer(self, model: int, tokens: list[int], deadline: float) -> Answer:
        tries, lost = 0, set[int]()
        while (left := deadline - _now()) > 0:
            number = self._choose(model, lost)
            if number == NOBODY:
                if left < min(self.groups[g].build_s for g in self.hosts[model]):
                    return Answer("failed", 503, "no group with this model is up", tries=tries)
                if self.waiting >= self.deployment.most_outstanding:
                    return Answer("rejected", 503, CROWDED, tries=tries)
                lost.clear()
                await self._wait(left)
                continue
            tries += 1
            answer = await self._ask(number, model, tokens, left, tries)
            if answer is not None:
                return answer
            lost.add(number)
            if tries >= MOST_LOST:
                why = f"{MOST_LOST} groups were lost under it one after the other"
                return Answer("failed", 500, why, tries=tries)
        return Answer("failed", 504, LATE, tries=max(tries, 1))

    def _choose(self, model: int, lost: set[int]) -> int:
        up = [g for g in self.hosts[model] if self.groups[g].ready is not None and g not in lost]
        groups = np.array(up, np.int64)
        if self.most > 1:
            return int(together(groups, self.outstanding, self.own[model], self.most))
        return int(least_outstanding(groups, self.outstanding))

    async def _ask(
        self, number: int, model: int, tokens: list[int], left: float, tries: int
    ) -> Answer | None:
        """Return a group's answer; None if the group is lost."""
        group = self.groups[number]
        call = asyncio.ensure_future(_get(group.manager.handle.remote(model, tokens, left)))
        self.outstanding[number] += 1
        self.own[model, number] += 1
        # Until the group is done with it, whenever this request was answered.
        call.add_done_callback(lambda done: self._settle(model, number, done))
        try:
            reply: Reply = await asyncio.wait_for(asyncio.shield(call), left)
        except TimeoutError:
            return Answer("failed", 504, LATE, group=number, tries=tries)
        except RayError:  # the manager is gone, or says GroupDown
            return None
        group.least_s[model] = min(group.least_s[model], reply.idle_s)
        return _answer_of(reply, number, tries)

    def _settle(self, model: int, number: int, call: asyncio.Future[Any]) -> None:
        self.outstanding[number] -= 1
        self.own[model, number] -= 1
        if not call.cancelled():
            call.exception()  # seen, whether or not anybody waits for it still

    async def _wait(self, seconds: float) -> None:
        """Wait until a group comes up, at most so long."""
        self.waiting += 1
        try:
            await asyncio.wait_for(self.changed.wait(), seconds)
        except TimeoutError:
            return
        finally:
            self.waiting -= 1

    async def _gather(self, group: Group) -> None:
        """Reserve the group's devices, on one node as planned, if it is not larger than one."""
        nccl = self.deployment.backend == "nccl"
        each = {"GPU": 1.0} if nccl else {"CPU": self.deployment.cpus_per_device}
        each = {name: amount for name, amount in each.items() if amount} or {"CPU": 0.001}
        inside = group.spec.devices <= self.deployment.per_node
        strategy = "STRICT_PACK" if inside else "PACK"
        group.bundles = placement_group([each] * group.spec.devices, strategy=strategy)
        try:
            await asyncio.wait_for(_get(group.bundles.ready()), GATHER_S)
        except TimeoutError as error:
            have = ray.cluster_resources()
            raise RuntimeError(
                f"the cluster cannot give group {group.spec.number} its {group.spec.devices}"
                f" devices{' of one node' if inside else ''} within {GATHER_S:g} s; it has"
                f" {have.get('CPU', 0):g} CPUs and"
                f" {have.get('GPU', 0):g} GPUs in all"
            ) from error

    async def _build(self, group: Group) -> None:
        """Start a group's manager and workers; not open yet."""
        begun = _now()
        made = ray.remote(GroupManager).options(num_cpus=0, max_concurrency=10_000)
        group.manager = made.remote(self.deployment, group.spec, group.bundles)
        await group.manager.start.remote()
        group.build_s = max(_now() - begun, LEAST_REBUILD_S)

    async def _open(self, group: Group) -> None:
        ready: Ready = await group.manager.warm_up.remote(group.scale)
        group.ready, group.scale = ready, ready.scale
        self.books.groups_up.inc()
        profiled = {m: group.spec.alone_s(m) for m in ready.measured_s}
        worst = max((ready.measured_s[m] / profiled[m] for m in profiled), default=1.0)
        if worst > MUCH:
            self._say(
                f"group {group.spec.number} takes up to {worst:.2f} times as long as the profile"
                " says, so the plan is better than it can be; measure a profile of this machine"
            )

    def _say(self, sentence: str) -> None:
        self.events.append((time.time(), sentence))

    async def _watch(self, group: Group) -> None:
        """Build the group anew whenever it is lost, for as long as the service lives."""
        while True:
            try:
                reason = await group.manager.live.remote()
            except RayError as error:
                reason = f"its manager died: {type(error).__name__}"
            if group.ready is not None:
                self.books.groups_up.dec()
            group.ready = None
            self._say(f"group {group.spec.number} is lost, building it anew: {reason}")
            await self._rebuild(group)
            self.books.rebuild()
            self._say(f"group {group.spec.number} serves again")
            self.changed.set()
            self.changed.clear()

    async def _rebuild(self, group: Group) -> None:
        while True:
            ray.kill(group.manager)
            try:
                await self._build(group)
                await self._open(group)
                return
            except RayError as error:
                self._say(f"group {group.spec.number}: {error}; trying again")
                await asyncio.sleep(PAUSE_S)

    def _keep(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def drain(self, seconds: float) -> Totals:
        """Refuse what comes from now on, wait for what is in flight; return the books."""
        self.draining = True
        ends = _now() + seconds
        while self.books.totals().in_flight and _now() < ends:
            await asyncio.sleep(0.05)
        for task in self.tasks:
            task.cancel()
        return self.books.totals()

    async def totals(self) -> Totals:
        """Return the books."""
        return self.books.totals()

    async def told(self, first: int) -> list[tuple[float, str]]:
        """Return what happened, from the first-th event on: when (Unix time) and what."""
        return self.events[first:]

    async def state(self) -> list[Ready | None]:
        """Return each group's processes; None of one that is down."""
        return [group.ready for group in self.groups]


def _answer_of(reply: Reply, number: int, tries: int) -> Answer:
    if reply.admitted and reply.logits is None:
        return Answer("failed", 504, LATE, group=number, tries=tries)
    if reply.admitted:
        return Answer("served", 200, logits=reply.logits or (), group=number, tries=tries)
    if tries > 1:
        reason = f"its group was lost, and of the other {reply.reason}"
        return Answer("failed", 503, reason, group=number, tries=tries)
    return Answer("rejected", 429, reply.reason, group=number)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _get(reference: Any) -> Any:
    return await reference
