"""A group manager: admits requests to its group and has its stage workers carry them out.

One Ray actor per group; it owns its workers, so they end with it. A group in which anything died
or hangs is given up as a whole: what is in flight is answered with `GroupDown`, the controller
tries elsewhere and builds the group anew.
"""

import asyncio
import os
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from beta.run.admission import Admission
from beta.run.specs import Deployment, GroupSpec, Ready, Reply
from beta.run.worker import Address, StageWorker, tokens_of

HOST_S = 0.005
"""Of an answer's time that no stage is busy: calls, as the event simulator has it."""
WARM_UPS = 6
"""Runs of each model at the start; the median of the last half is what it takes."""
STALL_S = 20.0
"""Without an answer for so long beyond what was predicted, a group with work in it hangs."""


class GroupDown(RuntimeError):
    """A worker of the group died or hangs; what it held has to be asked elsewhere."""


class GroupManager:
    """An asynchronous Ray actor."""

    def __init__(self, deployment: Deployment, group: GroupSpec, bundles: Any) -> None:
        self.deployment, self.group = deployment, group
        self.admission = Admission(
            group.stage_s,
            margin_s=deployment.margin_s,
            correct=deployment.correct,
            limit=deployment.scale_limit,
        )
        self.workers = [self._worker(rank, bundles) for rank in range(group.devices)]
        self.last = self.workers[(group.pp - 1) * group.op]
        self.down: asyncio.Event | None = None
        self.reason, self.in_flight, self.progress = "", 0, time.monotonic()

    def _worker(self, rank: int, bundles: Any) -> Any:
        nccl = self.deployment.backend == "nccl"
        remote: Any = ray.remote  # its overloads do not know concurrency groups
        made = remote(concurrency_groups={"watch": 1})(StageWorker).options(
            num_cpus=0 if nccl else self.deployment.cpus_per_device,
            num_gpus=1 if nccl else 0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                bundles, placement_group_bundle_index=rank
            ),
        )
        deployed = self.deployment
        return made.remote(self.group, rank, deployed.backend, deployed.delay, deployed.threads)

    async def start(self) -> None:
        """Have the workers meet and load all models."""
        self.down = asyncio.Event()
        self.watching = [asyncio.create_task(self._watch(worker)) for worker in self.workers]
        self.watching.append(asyncio.create_task(self._watch_progress()))
        address: Address = await self.workers[0].open.remote()
        await asyncio.gather(*(worker.join.remote(address) for worker in self.workers))
        for number in self.group.models:
            spec = self.deployment.models[number]
            await asyncio.gather(*(worker.load.remote(number, spec) for worker in self.workers))

    async def warm_up(self, scale: float | None) -> Ready:
        """Run every model; set the scale by what they take, or to the one given."""
        measured = dict[int, float]()
        for number in self.group.models:
            tokens, times = tokens_of(self.deployment.models[number].shape), list[float]()
            for _ in range(WARM_UPS if scale is None else 2):
                begun = time.perf_counter()
                await self._carry_out(number, tokens)
                times.append(time.perf_counter() - begun)
            half = sorted(times[len(times) // 2 :])
            measured[number] = max(half[len(half) // 2] - HOST_S, 0.0)
        ratios = sorted(measured[n] / self.admission.predicted_s(n) for n in measured) or [1.0]
        limit = self.deployment.scale_limit
        found = min(max(ratios[len(ratios) // 2], 1.0), limit)
        self.admission.scale = found if scale is None else scale
        pids = tuple(await asyncio.gather(*(worker.pid.remote() for worker in self.workers)))
        return Ready(
            manager_pid=os.getpid(),
            worker_pids=pids,
            scale=self.admission.scale,
            measured_s=measured,
        )

    async def handle(self, number: int, tokens: list[int], left_s: float) -> Reply:
        """Admit a request that has `left_s` seconds, and answer it. Raises GroupDown."""
        now = time.monotonic()
        deadline = now + left_s
        if self.in_flight >= self.deployment.most_outstanding:
            return Reply(admitted=False, reason="the group holds as many requests as it may")
        predicted = self.admission.admit(number, now, deadline)
        if predicted is None:
            return Reply(admitted=False, reason="the answer would come too late")
        logits = await self._carry_out(number, tokens)
        self.admission.answered(now, predicted, time.monotonic(), deadline)
        return Reply(admitted=True, logits=tuple(logits))

    async def live(self) -> str:
        """Return only when the group is down: why."""
        assert self.down is not None
        await self.down.wait()
        return self.reason

    def scale(self) -> float:
        """Return by how much slower than profiled the stages are taken to be."""
        return self.admission.scale

    async def _carry_out(self, number: int, tokens: list[int]) -> list[float]:
        assert self.down is not None
        if self.down.is_set():
            raise GroupDown(self.reason)
        # Nothing is awaited between admission and these calls: all workers get one order.
        issued = time.monotonic()
        calls = {worker: worker.step.remote(number, tokens, issued) for worker in self.workers}
        if not self.in_flight:
            self.progress = time.monotonic()
        self.in_flight += 1
        answer = asyncio.ensure_future(_get(calls[self.last]))
        down = asyncio.ensure_future(self.down.wait())
        try:
            await asyncio.wait({answer, down}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise GroupDown(self.reason)
            return answer.result()
        except Exception as error:
            self._give_up(f"{type(error).__name__}: {error}")
            raise GroupDown(self.reason) from error
        finally:
            down.cancel()
            answer.cancel()
            self.in_flight -= 1
            self.progress = time.monotonic()

    def _give_up(self, reason: str) -> None:
        assert self.down is not None
        if not self.down.is_set():
            self.reason = " ".join(reason.split())[:300]
            self.down.set()
            for worker in self.workers:
                ray.kill(worker)

    async def _watch(self, worker: Any) -> None:
        try:
            await worker.live.options(concurrency_group="watch").remote()
        except RayError as error:
            self._give_up(f"a stage worker died: {type(error).__name__}")

    async def _watch_progress(self) -> None:
        slowest = max((sum(seconds) for seconds in self.group.stage_s.values()), default=0.0)
        while True:
            await asyncio.sleep(1.0)
            if self.in_flight and time.monotonic() - self.progress > STALL_S + 10 * slowest:
                self._give_up("the stages hang")


async def _get(reference: Any) -> Any:
    return await reference
