"""The service without Ray: the same workers, head and wires, all in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from helix.inputs.cluster_source import ClusterSource, LinkSource, MachineGroup
from helix.inputs.experiment import (
    Experiment,
    KindSource,
    ModelSource,
    ProfileSource,
    SearchSettings,
    WorkloadSettings,
)
from helix.inputs.layer import Shape
from helix.inputs.roofline import Gpu
from helix.inputs.serving import ServeSettings
from helix.plan.placement import wired
from helix.plan.plans import Plan
from helix.plan.question import ask
from helix.run.deploy import Deployment, Part
from helix.run.fleet import Fleet
from helix.run.request import Ask, Done, Running
from helix.run.serving import Serving
from helix.run.worker import Worker

SHAPE = Shape(hidden_size=64, intermediate_size=96, heads=4, kv_heads=2, value_bytes=4)
PEAKS = Gpu(memory_gb=0.02, memory_gb_per_s=1.0, tflops=0.01)


def experiment(machines: int = 4, layers: int = 6, **serve: Any) -> Experiment:
    return Experiment(
        name="local",
        model=ModelSource(name="tiny", layers=layers, shape=SHAPE),
        cluster=ClusterSource(
            machines=(MachineGroup(kind="m", count=machines),),
            default_link=LinkSource(gbit_per_s=1.0, latency_ms=0.0),
        ),
        profile=ProfileSource(source="roofline", kinds={"m": KindSource(peaks=PEAKS)}),
        search=SearchSettings(method="petals"),
        workload=WorkloadSettings(),
        serve=ServeSettings(**{"patience_s": 20.0, "restart": False, "port": 0, **serve}),
    )


def plan(asked: Experiment, runs: tuple[tuple[int, int], ...], partial: bool = False) -> Plan:
    """The plan with these runs of layers."""
    question = ask(asked)
    placement = wired(question.model.layers, runs, question.cluster.links, partial)
    one = question.alone(placement)
    return Plan(
        experiment=asked.name, method="search", objective="flow", services=(one,), flow=one.flow,
        bound=question.bound(), estimate=None,
        machines=tuple(node.kind for node in question.cluster.nodes),
    )  # fmt: skip


class _Method:
    def __init__(self, call: Any) -> None:
        self._call = call

    def remote(self, *arguments: Any) -> Any:
        return asyncio.get_running_loop().run_in_executor(None, self._call, *arguments)


class LocalWorker(Worker):
    """A worker in this process: where it would end its process, its connections end."""

    ended = False

    def _end(self, error: Exception) -> None:
        self.ended = True
        self._listener.close()
        for link in self._links.values():
            link.cut()


class LocalActor:
    """A handle of a worker in this process; `kill` ends it as a lost machine ends."""

    def __init__(self, worker: LocalWorker) -> None:
        self.worker = worker

    def __getattr__(self, name: str) -> _Method:
        return _Method(getattr(self.worker, name))

    def kill(self) -> None:
        self.worker._end(ConnectionError("killed"))
        self.worker._halt()


class LocalFleet(Fleet):
    def _begin(self, kinds: Mapping[str, int]) -> None:
        pass

    def _actor(self, part: Part) -> Any:
        return LocalActor(LocalWorker(part.machine, self._secret, "127.0.0.1", 1))

    def _follow(self, machine: int, actor: Any) -> None:
        pass

    def _end(self) -> None:
        for one in self.workers.values():
            one.actor.kill()

    def _kill(self, actor: LocalActor) -> None:
        actor.kill()

    def kill(self, machine: int) -> None:
        """Lose a machine: its connections end, nothing of it answers any more."""
        self.workers[machine].actor.kill()
        self._hung_up(machine)


@contextlib.asynccontextmanager
async def local(asked: Experiment, made: Plan, seed: int = 0) -> AsyncIterator[Serving]:
    serving = Serving(Deployment(asked, made, seed))
    old = serving.fleet
    serving.fleet = LocalFleet(old.settings, old.config, old.seed, old._heard, old._lost)
    serving.head._send = serving.fleet.send
    try:
        await serving.open()
        yield serving
    finally:
        await serving.close()


async def answer(serving: Serving, ids: list[int], most: int = 12, **ask_: Any) -> list[int]:
    return await answer_of(serving.head.submit(Ask(ids, most, **ask_)))


async def answer_of(running: Running) -> list[int]:
    tokens = list[int]()
    while not isinstance(one := await asyncio.wait_for(running.out.get(), 60), Done):
        tokens.append(one.id)
    if one.error is not None:
        raise one.error
    return tokens


async def settled(serving: Serving) -> list[Any]:
    """The workers' facts once their caches are empty, or after long enough for a busy machine."""
    for _ in range(600):
        facts = await serving.fleet.facts()
        if not any(f.blocks_used for f in facts):
            break
        await asyncio.sleep(0.05)
    return facts


def balanced(serving: Serving) -> bool:
    return serving.head.books.open() == len(serving.head.running) + len(serving.head.waiting)


def with_serve(asked: Experiment, **serve: Any) -> Experiment:
    return msgspec.structs.replace(asked, serve=msgspec.structs.replace(asked.serve, **serve))
