"""Serve a plan, check its outputs, put the experiment's traffic on it, end it."""

import asyncio
import logging
import math
import os
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ray.exceptions import RayError

from beta.inputs.experiment import Experiment
from beta.inputs.load import Loaded
from beta.plan.plans import Plan
from beta.run.books import Answer, Totals
from beta.run.client import Counts, Sent, Target, counts_of, put_load, state_of
from beta.run.deploy import deployment_of, model_specs
from beta.run.reference import TOLERANCE, Reference
from beta.run.service import Service, serving
from beta.run.specs import Deployment, ModelSpec, Ready
from beta.run.worker import tokens_of
from beta.simulate.fast import NOBODY, Outcome
from common.errors import CaseError, InputError
from common.ranks import Backend
from common.spread import cores

log = logging.getLogger("beta")

CHECK_S = 60.0
"""Seconds that a checked output may take."""
CHECKED_WEIGHTS = 500e6
"""Models with more are not built a second time: a layer of them is compared."""


class Measured(NamedTuple):
    """What a service did under its load."""

    sent: Sent | None
    """None: it only served, until told to end."""
    counts: Counts | None
    totals: Totals | None
    """The service's books; None of one that was running already."""
    difference: float | None
    """Largest difference of an output from the single process's; None: not checked."""
    kills: int = 0
    scale: float | None = None
    """Largest by which a group's stages are slower than profiled."""
    slowest: float | None = None
    """Largest of warm-up latency over profiled latency, of any group and model."""


def targets_of(models: Sequence[ModelSpec]) -> list[Target]:
    """Return what the client asks each model: a request of full length."""
    return [
        Target(
            model.name,
            math.inf if model.slo_s is None else model.slo_s,
            tokens_of(model.shape, seed=number),
        )
        for number, model in enumerate(models)
    ]


def outcome_of(sent: Sent, loaded: Loaded) -> Outcome:
    """Return what became of the requests as the simulators tell it: a refused one took no time."""
    finish = np.where(sent.good, sent.finish, loaded.test.arrival)
    return Outcome(finish, sent.good, np.full(len(finish), NOBODY, np.int32))


def serve(
    experiment: Experiment, plan: Plan, loaded: Loaded, *, backend: Backend = "gloo", seed: int = 0
) -> Measured:
    """Serve a plan as `experiment.serve` says.

    Raises InputError where it cannot be served here, and CaseError where serving failed.
    """
    settings = experiment.serve
    if settings.target:
        specs = model_specs(experiment, loaded, seed)
        return asyncio.run(_only_load(experiment, loaded, targets_of(specs)))
    if settings.kill_every_s and settings.ray != "local":
        raise InputError("serve.kill_every_s ends processes of this machine; use serve.ray=local")
    workers = sum(g.op * g.pp for g in plan.periods[0].groups)
    threads = max(cores() // max(workers, 1), 1)
    deployment = deployment_of(
        experiment, plan, loaded, backend=backend, seed=seed, threads=threads
    )
    if settings.ray == "local" and workers > cores():
        log.warning("%d stage workers share %d cores: they slow each other", workers, cores())
    with serving(deployment, settings.ray) as service:
        log.info("serving %d models at %s", len(deployment.models), service.url)
        return asyncio.run(_Run(experiment, loaded, deployment, service).go())


async def _only_load(experiment: Experiment, loaded: Loaded, targets: Sequence[Target]) -> Measured:
    url = experiment.serve.target.rstrip("/")
    settings = experiment.serve
    key = settings.key()
    await state_of(url, key)
    sent = await put_load(url, loaded.test, targets, timeout_s=settings.timeout_s, key=key)
    return Measured(sent, counts_of(sent), None, None)


class _Run:
    """One service from ready to drained."""

    def __init__(
        self, experiment: Experiment, loaded: Loaded, deployment: Deployment, service: Service
    ) -> None:
        self.settings, self.loaded = experiment.serve, loaded
        self.deployment, self.service = deployment, service
        self.told = self.kills = 0
        self.ending = asyncio.Event()

    async def go(self) -> Measured:
        for ends in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(ends, self.ending.set)
        targets = targets_of(self.deployment.models)
        difference = await self._check(targets)
        ready = [r for r in await self._call("state") if r is not None]
        await self._call("open")
        sent = None
        if self.settings.load == "traffic":
            sent = await self._load(targets)
        else:
            await self._until_told()
        after = Totals(*await self._call("end", self.settings.drain_s))
        await self._tell()
        return Measured(
            sent,
            None if sent is None else counts_of(sent),
            after,
            difference,
            self.kills,
            max((s for r in ready for s in r.scale.values()), default=None),
            max((self._slowness(g, r) for g, r in enumerate(ready)), default=None),
        )

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await _get(getattr(self.service.controller, method).remote(*arguments))
        except RayError as error:
            raise CaseError(f"the controller is gone: {type(error).__name__}") from error

    async def _check(self, targets: Sequence[Target]) -> float | None:
        """Compare every placed model's output with the single process's, before any traffic.

        Of a model too large to be built a second time, a layer is compared on every worker.
        """
        if self.deployment.wait:
            return None
        placed = sorted({m for group in self.deployment.groups for m in group.models})
        worst: float | None = None
        for m in placed:
            shape = self.deployment.models[m].shape
            large = 12 * shape.layers * shape.hidden**2 > CHECKED_WEIGHTS
            off = await (self._call("sample", m) if large else self._off(m, targets[m]))
            worst = off if worst is None else max(worst, off)
        if worst is not None:
            log.info("outputs are within %.2g of the single process's", worst)
            if worst > TOLERANCE and self.deployment.backend == "gloo":
                raise CaseError(f"an output is {worst:.3g} off the single process's: not served")
        return worst

    async def _off(self, m: int, target: Target) -> float:
        answer: Answer = await self._call("check", m, [*target.tokens], CHECK_S)
        if answer.outcome != "served":
            raise CaseError(f"{target.name}: its output cannot be checked: {answer.reason}")
        model = self.deployment.models[m]
        want = Reference(model.shape, model.seed).logits([*target.tokens])
        return max(abs(g - w) for g, w in zip(answer.logits, want, strict=True))

    async def _load(self, targets: Sequence[Target]) -> Sent | None:
        log.info("sending %d requests", len(self.loaded.test))
        work = asyncio.create_task(
            put_load(
                self.service.url,
                self.loaded.test,
                targets,
                timeout_s=self.settings.timeout_s,
                key=self.deployment.api_key,
                tick=self._tick,
            )
        )
        end = asyncio.create_task(self.ending.wait())
        await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
        end.cancel()
        if work.done():
            return work.result()
        log.info("told to end: the load stops")
        work.cancel()
        return None

    async def _until_told(self) -> None:
        log.info("Ctrl-C or SIGTERM ends it, after what is in flight")
        while not self.ending.is_set():
            await self._tell()
            try:
                await asyncio.wait_for(self.ending.wait(), 1.0)
            except TimeoutError:
                continue
        log.info("told to end: no new requests")

    async def _tick(self, seconds: float) -> None:
        await self._tell()
        every = self.settings.kill_every_s
        if every and seconds >= (self.kills + 1) * every and seconds < self._last_kill():
            await self._kill()

    def _last_kill(self) -> float:
        """Return when kills end, so that the last group is back before the load ends."""
        return float(self.loaded.test.arrival[-1]) - min(self.settings.kill_every_s, 30.0)

    async def _kill(self) -> None:
        """Kill a stage worker, then a manager, and so on, group after group."""
        groups: list[Ready | None] = await self._call("state")
        ready = groups[self.kills // 2 % len(groups)]
        if ready is None:
            return
        manager = self.kills % 2 == 1
        pids = ready.worker_pids
        pid = ready.manager_pid if manager else pids[self.kills // 2 % len(pids)]
        log.info("killing %s, process %d", "a group manager" if manager else "a stage worker", pid)
        os.kill(pid, signal.SIGKILL)
        self.kills += 1

    async def _tell(self) -> None:
        """Log what the controller has to say."""
        for _, sentence in await self._call("told", self.told):
            log.warning("%s", sentence)
            self.told += 1

    def _slowness(self, group: int, ready: Ready) -> float:
        spec = self.deployment.groups[group]
        return max((took / spec.alone_s(m) for m, took in ready.measured_s.items()), default=1.0)


async def _get(reference: Any) -> Any:
    return await reference
