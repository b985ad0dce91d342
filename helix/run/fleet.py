"""The workers as Ray actors: where they run, how they are started, linked and stopped.

A machine of kind K takes one unit of the Ray resource K, so that a Ray cluster of unlike machines
is described by `ray start --resources='{"K": 1}'` on each. Ray places and starts the processes;
what they send one another does not pass through it (helix/README.md says why).
"""

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from common import spread
from common.errors import InputError
from helix.inputs.serving import ServeSettings
from helix.run.decoder_config import DecoderConfig
from helix.run.deploy import Part, WireTo
from helix.run.engine import BatchSpan
from helix.run.messages import HEAD, Failed, Message, Pass
from helix.run.supervise import signature
from helix.run.wire import Link, Listener
from helix.run.worker import Facts, Wire, Worker

log = logging.getLogger("helix")

START_S = 300.0  # Ray may have to wait for a node
FACTS_S = 5.0  # a machine that does not say what it does in this time is left out
LOCAL = "127.0.0.1"


class Started(NamedTuple):
    """A worker that runs."""

    actor: Any
    host: str
    port: int
    pid: int


class Fleet:
    """All workers, and the head's own links to them."""

    def __init__(
        self, settings: ServeSettings, config: DecoderConfig, seed: int,
        heard: Callable[[Message], None], lost: Callable[[int], None],
    ) -> None:  # fmt: skip
        """`heard` and `lost` are called in the event loop that `start` runs in."""
        self.settings, self.config, self.seed = settings, config, seed
        self._heard, self._lost = heard, lost
        self.workers = dict[int, Started]()
        self._links = dict[int, Link]()
        self._secret = secrets.token_hex(16)
        self._listener: Listener | None = None
        self._following = set[asyncio.Task[None]]()
        self._closed = False

    async def open(self, kinds: Mapping[str, int]) -> None:
        """Start Ray, or join the cluster, and listen for workers."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._begin, kinds)
        host = LOCAL if not self.settings.address else await asyncio.to_thread(_own_address)
        self._listener = Listener(host, self._secret, self._from_worker, self._hung_up)

    def _begin(self, kinds: Mapping[str, int]) -> None:
        start_ray(self.settings, kinds)

    async def start(self, part: Part) -> None:
        """Start a machine's worker and let it load its layers."""
        actor = self._actor(part)
        try:
            async with asyncio.timeout(START_S):
                address = await actor.address.remote()
                self.workers[part.machine] = Started(actor, *address)
                self._follow(part.machine, actor)
                await self.load(part)
        except TimeoutError:
            raise InputError(
                f"Ray has no free machine of kind {part.kind!r} after {START_S:.0f} s; start nodes"
                f""" with --resources='{{"{part.kind}": 1}}'"""
            ) from None

    def _actor(self, part: Part) -> Any:
        import ray

        options = {
            "num_cpus": 0,
            "num_gpus": self.settings.gpus,
            "resources": {part.kind: 1},
            "max_concurrency": 3,  # one call is `hold`
            "max_restarts": 0,
        }
        host = "" if self.settings.address else LOCAL
        made = ray.remote(Worker).options(**options)
        return made.remote(part.machine, self._secret, host, self.settings.threads)

    def _follow(self, machine: int, actor: Any) -> None:
        """Tell of the actor's end, even if its connection has not told it."""

        async def until_the_end() -> None:
            try:
                await actor.hold.remote()
            except Exception as error:  # of Ray, as a rule; whatever it is, nobody watches now
                log.debug("machine %d: %s", machine, signature(error))
            known = self.workers.get(machine)
            if known is not None and known.actor is actor and not self._closed:
                self._lost(machine)

        task = asyncio.ensure_future(until_the_end())
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def load(self, part: Part) -> None:
        """Let a worker hold these layers."""
        serve = self.settings
        holding = (
            part.first, part.end, part.limits.kv_entries, serve.weights, self.seed, serve.device,
            serve.dtype,
        )  # fmt: skip
        actor = self.workers[part.machine].actor
        try:
            await actor.load.remote(self.config, holding, part.limits, part.pace, serve.trace)
        except Exception as error:
            cause = getattr(error, "cause", error)  # Ray wraps what a worker raises
            if isinstance(cause, InputError):
                raise InputError(f"machine {part.machine}: {cause}") from None
            raise

    async def connect(self, wires: Iterable[WireTo]) -> None:
        """Have exactly these links between head and running workers."""
        assert self._listener is not None
        places = {machine: (one.host, one.port) for machine, one in self.workers.items()}
        places[HEAD] = self._listener.address
        by_tail = dict[int, list[Wire]]()
        for wire in wires:
            if wire.head in places and wire.tail in places:
                there = Wire(wire.head, *places[wire.head], wire.bytes_per_s, wire.latency_s)
                by_tail.setdefault(wire.tail, []).append(there)
        for wire in by_tail.pop(HEAD, []):
            self._reach(wire)
        await asyncio.gather(
            *(
                self.workers[machine].actor.connect.remote(mine)
                for machine, mine in by_tail.items()
            ),
            return_exceptions=True,  # a worker that is gone is told by `lost`
        )

    def _reach(self, wire: Wire) -> None:
        known, address = self._links.get(wire.machine), (wire.host, wire.port)
        if known and known.address == address and known.broken is None:
            return
        if known:
            known.close()

        def broke(error: Exception) -> None:
            log.debug("the head's link to machine %d: %s", wire.machine, signature(error))
            self._soon(self._cut_off, link)

        def unsent(message: Message, error: Exception) -> None:
            if isinstance(message, Pass) and not isinstance(error, OSError):
                self._soon(self._heard, Failed(message.key, HEAD, signature(error)))

        link = self._links[wire.machine] = Link(
            HEAD, self._secret, address, unsent, broke, wire.bytes_per_s, wire.latency_s
        )

    def _cut_off(self, link: Link) -> None:
        """Give a machine up that nothing can be sent to; it may be alive, and is ended then."""
        for machine in [m for m, one in self._links.items() if one is link]:
            self._lost(machine)

    def send(self, machine: int, message: Message) -> None:
        """Send to a worker; what is for one that is gone is dropped."""
        link = self._links.get(machine)
        if link is not None:
            link.send(message)

    async def facts(self) -> list[Facts]:
        """Return what every worker is doing; those that do not answer are left out."""
        calls = [
            asyncio.wait_for(one.actor.facts.remote(), FACTS_S) for one in self.workers.values()
        ]
        found = await asyncio.gather(*calls, return_exceptions=True)
        return [one for one in found if not isinstance(one, BaseException)]

    async def spans(self) -> list[BatchSpan]:
        """Return the batches of all workers."""
        calls = [one.actor.spans.remote() for one in self.workers.values()]
        found = await asyncio.gather(*calls, return_exceptions=True)
        return [s for spans in found if not isinstance(spans, BaseException) for s in spans]

    async def close(self) -> None:
        """End the workers, and Ray where it was started here."""
        self._closed = True
        for task in self._following:
            task.cancel()
        for link in self._links.values():
            link.close()
        if self._listener is not None:
            self._listener.close()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        import ray

        if ray.is_initialized():
            for one in self.workers.values():
                self._kill(one.actor)
            ray.shutdown()

    def _kill(self, actor: Any) -> None:
        import ray

        ray.kill(actor)

    def forget(self, machine: int) -> None:
        """Take a worker that is lost off the list; what is left of its process is ended."""
        known = self.workers.pop(machine, None)
        link = self._links.pop(machine, None)
        if link is not None:
            link.close()
        if known is not None:
            self._kill(known.actor)

    def _from_worker(self, sender: int, message: Message, payload: bytearray) -> None:
        self._soon(self._heard, message)

    def _hung_up(self, sender: int) -> None:
        self._soon(self._lost, sender)

    def _soon(self, call: Callable[..., None], *arguments: object) -> None:
        if not self._closed:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(call, *arguments)


def start_ray(settings: ServeSettings, kinds: Mapping[str, int]) -> None:
    """Join the cluster of `settings.address`, or start Ray here with a unit for each machine."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's workers give way to everything else by default; a service must not.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if settings.address:
        ray = spread.start_ray(f"serve.address {settings.address}", address=settings.address)
        total = ray.cluster_resources()
        short = {k: n for k, n in kinds.items() if total.get(k, 0) < n}
        if short:
            log.warning("waiting for Ray nodes with resources %s", short)
        return
    import torch

    gpus = torch.cuda.device_count() if settings.device == "cuda" else 0
    if settings.device == "cuda" and gpus < settings.gpus * sum(kinds.values()):
        raise InputError(
            f"serve.device is 'cuda' and serve.gpus {settings.gpus:g} for each of"
            f" {sum(kinds.values())} machines, but this machine has {gpus} GPUs"
        )
    resources = {kind: float(count) for kind, count in kinds.items()}
    spread.start_ray(
        "serve.address",
        address="local",  # whatever else runs on this machine
        num_cpus=1,
        num_gpus=gpus,
        resources=resources,
        include_dashboard=False,
        namespace="helix",
        object_store_memory=100 * 2**20,
    )


def _own_address() -> str:
    import ray.util

    return ray.util.get_node_ip_address()
