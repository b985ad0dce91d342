"""One machine of the service: the process that Ray runs for it."""

import logging
import os
import threading
from functools import partial
from typing import NamedTuple

from helix.inputs.profile import Limits
from helix.run.decoder_config import DecoderConfig
from helix.run.engine import BatchSpan, Engine
from helix.run.messages import HEAD, Broken, Failed, Key, Message, Pass, Refused
from helix.run.pace import Pace
from helix.run.supervise import signature, watched
from helix.run.wire import Buffer, Link, Listener

log = logging.getLogger("helix")


class Wire(NamedTuple):
    """A link to make: to whom, where that listens, and what is played on it (0: nothing)."""

    machine: int
    host: str
    port: int
    bytes_per_s: float = 0.0
    latency_s: float = 0.0


class Facts(NamedTuple):
    """What a worker is doing."""

    machine: int
    blocks_used: int
    blocks: int
    requests: int
    waiting: int
    batches: int
    late: int
    """Batches that took longer than the machine that is played."""
    late_s: float
    busy_s: float


class Worker:
    """Receives passes, runs them through its layers and sends them on."""

    def __init__(self, machine: int, secret: str, host: str, threads: int) -> None:
        """Listen; an empty host is the address that other nodes of the Ray cluster know."""
        import torch

        torch.set_num_threads(threads)
        if not host:
            import ray.util

            host = ray.util.get_node_ip_address()
        self.machine, self._secret = machine, secret
        self._links = dict[int, Link]()
        self._dropped = dict[Key, None]()
        self._engine: Engine | None = None
        self._idle = threading.Event()  # set while no engine runs
        self._idle.set()
        self._listener = Listener(host, secret, self._received, lambda _: None)

    def address(self) -> tuple[str, int, int]:
        """Return host, port and process id."""
        return (*self._listener.address, os.getpid())

    def hold(self) -> None:
        """Return never: whoever waits for it learns of this process's end."""
        threading.Event().wait()

    def load(
        self, config: DecoderConfig, holding: "tuple[object, ...]", limits: Limits,
        pace: Pace | None, trace: bool,
    ) -> None:  # fmt: skip
        """Hold these layers from now on (the fields of a `Holding`); forget all that is at work."""
        from helix.run.stage import Holding, Stage

        self._halt()
        stage = Stage(config, Holding(*holding))  # type: ignore[arg-type]
        engine = Engine(self.machine, stage, limits, pace, self._send, self._dropped)
        engine.spans = [] if trace else None
        self._engine = engine
        self._idle.clear()
        watched("engine", self._run, self._end)

    def connect(self, wires: list[Wire]) -> None:
        """Have exactly these links; those that are there already stay.

        The engine goes on sending meanwhile, so the new links take the old ones' place at once.
        """
        old, links = self._links, dict[int, Link]()
        for wire in wires:
            known = old.get(wire.machine)
            shape = ((wire.host, wire.port), wire.bytes_per_s, wire.latency_s)
            if known and _shape(known) == shape and known.broken is None:
                links[wire.machine] = known
            else:
                links[wire.machine] = Link(
                    self.machine, self._secret, shape[0], self._unsent,
                    partial(self._broke, wire.machine), *shape[1:],
                )  # fmt: skip
        self._links = links
        for machine, link in old.items():
            if links.get(machine) is not link:
                link.close()

    def facts(self) -> Facts:
        """Return what the worker is doing."""
        engine = self._engine
        if engine is None:
            return Facts(self.machine, 0, 0, 0, 0, 0, 0, 0.0, 0.0)
        pool, clock = engine.stage.pool, engine.clock
        return Facts(
            self.machine, pool.used, pool.blocks, pool.requests, len(engine.queues),
            clock.batches, clock.late, clock.late_s, clock.busy_s,
        )  # fmt: skip

    def spans(self) -> list[BatchSpan]:
        """Return the batches so far, if they are traced."""
        return list(self._engine.spans or ()) if self._engine else []

    def _halt(self) -> None:
        if self._engine is not None:
            self._engine.stop()
            self._idle.wait()

    def _run(self) -> None:
        assert self._engine is not None
        try:
            self._engine.run()
        finally:
            self._idle.set()

    def _end(self, error: Exception) -> None:
        """End the process: without its loop, or its link to the head, the machine is of no use.

        The head learns of it as its connections end, and starts the machine again.
        """
        log.error("machine %d ends: %s", self.machine, signature(error))
        os._exit(1)

    def _received(self, sender: int, message: Message, payload: bytearray) -> None:
        if self._engine is not None:
            self._engine.put(message, payload)

    def _send(self, machine: int, message: Message, payload: Buffer) -> None:
        link = self._links.get(machine)
        if link is None:
            self._unsent(message, ConnectionError(f"no link to machine {machine}"))
        else:
            link.send(message, payload)

    def _broke(self, machine: int, error: Exception) -> None:
        """Tell the head of a link that is gone; without the one to the head there is no use."""
        if machine == HEAD:
            self._end(error)
        else:
            self._send(HEAD, Broken(self.machine, machine, signature(error)), b"")

    def _unsent(self, message: Message, error: Exception) -> None:
        """Tell the head of a pass that does not reach the next machine."""
        if not isinstance(message, Pass):
            return
        if isinstance(error, OSError):
            next_one = message.way[message.hop].machine
            why = f"machine {next_one} cannot be reached from machine {self.machine}"
            self._send(HEAD, Refused(message.key, self.machine, why), b"")
        else:
            self._send(HEAD, Failed(message.key, self.machine, signature(error)), b"")


def _shape(link: Link) -> tuple[tuple[str, int], float, float]:
    return link.address, link.bytes_per_s, link.latency_s
