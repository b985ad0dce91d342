"""A group manager: admits requests to its group and has its stage workers carry them out.

One Ray actor per group; it owns its workers, so they end with it. A group in which anything died
or hangs is given up as a whole: what is in flight is answered with `GroupDown`, the controller
tries elsewhere and builds the group anew.
"""

import asyncio
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from beta.run.line import Line
from beta.run.pipeline import Logits, Pipeline, Work
from beta.run.specs import Deployment, GroupSpec, Ready, Reply
from beta.run.worker import Address, StageWorker, tokens_of

HOST_S = 0.005
"""Of an answer's time that no stage is busy: calls, as the event simulator has it."""
WARM_UPS = 6
"""Runs of each model at the start; the median of the last half is what it takes."""
STALL_S = 20.0
"""Without a stage done for so long beyond what was predicted, a group with work in it hangs."""


class GroupDown(RuntimeError):
    """A worker of the group died or hangs; what it held has to be asked elsewhere."""


class GroupManager:
    """An asynchronous Ray actor."""

    def __init__(self, deployment: Deployment, group: GroupSpec, bundles: Any) -> None:
        self.deployment, self.group = deployment, group
        self.pipeline = self._pipeline({}, learning=False)
        self.workers = [self._worker(rank, bundles) for rank in range(group.devices)]
        self.down: asyncio.Event | None = None
        self.reason = ""

    def _pipeline(self, scale: Mapping[int, float], *, learning: bool) -> Pipeline:
        """Return an empty one; a model's stages take `scale` times what the profile says."""
        given = {
            model: {
                size: tuple(s * scale.get(model, 1.0) for s in seconds)
                for size, seconds in batches.items()
            }
            for model, batches in self.group.stage_s.items()
        }
        line = Line(given, margin_s=self.deployment.margin_s, learning=learning)
        return Pipeline(line, self._call, self._broken)

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
        return made.remote(self.group, rank, deployed.backend, deployed.wait, deployed.threads)

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

    async def warm_up(self, scale: dict[int, float] | None) -> Ready:
        """Run every model; begin with what they take, or by the scale given for each."""
        measured = dict[int, float]()
        for number in self.group.models:
            tokens, times = tokens_of(self.deployment.models[number].shape), list[float]()
            for _ in range(WARM_UPS if scale is None else 2):
                begun = self.pipeline.now()
                await self._answer(number, tokens, math.inf)
                times.append(self.pipeline.now() - begun)
            half = sorted(times[len(times) // 2 :])
            measured[number] = max(half[len(half) // 2] - HOST_S, 0.0)
        if scale is None:
            profiled = {m: self.group.alone_s(m) for m in measured}
            learnt = measured if self.deployment.correct else {}
            scale = {m: max(seconds / profiled[m], 1.0) for m, seconds in learnt.items()}
        self.pipeline = self._pipeline(scale, learning=self.deployment.correct)
        pids = tuple(await asyncio.gather(*(worker.pid.remote() for worker in self.workers)))
        return Ready(manager_pid=os.getpid(), worker_pids=pids, scale=scale, measured_s=measured)

    async def handle(self, number: int, tokens: list[int], left_s: float) -> Reply:
        """Admit a request that has `left_s` seconds, and answer it. Raises GroupDown."""
        line = self.pipeline.line
        if line.outstanding >= self.deployment.most_outstanding:
            return Reply(admitted=False, reason="the group holds as many requests as it may")
        reply = await self._answer(number, tokens, self.pipeline.now() + left_s)
        idle_s = float(line.speeds.pace(number).usual.sum())
        if reply is None:
            reason = "the answer would come too late"
            return Reply(admitted=False, reason=reason, idle_s=idle_s)
        (logits,) = reply
        return Reply(admitted=True, logits=logits, idle_s=idle_s)

    async def sample(self, number: int) -> float:
        """Return by how much a layer's output is off the reference's on any worker."""
        calls = [worker.sample.remote(number) for worker in self.workers]
        return max(await asyncio.gather(*calls))

    async def live(self) -> str:
        """Return only when the group is down: why."""
        assert self.down is not None
        await self.down.wait()
        return self.reason

    async def _answer(
        self, number: int, tokens: list[int], deadline: float
    ) -> tuple[Logits | None] | None:
        """Return the logits, None in their place if dropped; None if not even admitted."""
        assert self.down is not None
        if self.down.is_set():
            raise GroupDown(self.reason)
        answer = self.pipeline.ask(number, tokens, deadline)
        if answer is None:
            return None
        down = asyncio.ensure_future(self.down.wait())
        try:
            await asyncio.wait({answer, down}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise GroupDown(self.reason)
            return (answer.result(),)
        finally:
            down.cancel()
            answer.cancel()

    async def _call(self, stage: int, work: Work) -> Sequence[Logits]:
        """Have all workers of a stage do a piece of work; of the last, return each's logits."""
        first = stage * self.group.op
        calls = [
            worker.step.remote(*work) for worker in self.workers[first : first + self.group.op]
        ]
        found = await asyncio.gather(*calls)
        return [tuple(logits) for logits in found[0] or ()]

    def _broken(self, error: Exception) -> None:
        self._give_up(f"{type(error).__name__}: {error}")

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
        while True:
            await asyncio.sleep(1.0)
            if self.pipeline.stalled_s() > STALL_S:
                self._give_up("the stages hang")
