"""One machine of the service: the process that Ray runs for it."""

import os
import threading
from typing import NamedTuple

from helix.inputs.profile import Limits
from helix.run.engine import BatchSpan, Engine
from helix.run.llama_config import LlamaConfig
from helix.run.messages import HEAD, Key, Message, Pass, Refused
from helix.run.pace import Pace
from helix.run.wire import Buffer, Link, Listener


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
        self._thread: threading.Thread | None = None
        self._listener = Listener(host, secret, self._received, lambda _: None)

    def address(self) -> tuple[str, int, int]:
        """Return host, port and process id."""
        return (*self._listener.address, os.getpid())

    def hold(self) -> None:
        """Return never: whoever waits for it learns of this process's end."""
        threading.Event().wait()

    def load(
        self, config: LlamaConfig, holding: "tuple[object, ...]", limits: Limits, pace: Pace | None,
        trace: bool,
    ) -> None:  # fmt: skip
        """Hold these layers from now on (the fields of a `Holding`); forget all that is at work."""
        from helix.run.stage import Holding, Stage

        self._halt()
        stage = Stage(config, Holding(*holding))  # type: ignore[arg-type]
        engine = Engine(self.machine, stage, limits, pace, self._send, self._dropped)
        engine.spans = [] if trace else None
        self._engine = engine
        self._thread = threading.Thread(target=self._run, daemon=True, name="engine")
        self._thread.start()

    def connect(self, wires: list[Wire]) -> None:
        """Have exactly these links; those that are there already stay.

        The engine goes on sending meanwhile, so the new links take the old ones' place at once.
        """
        old, links = self._links, dict[int, Link]()
        for wire in wires:
            known = old.get(wire.machine)
            shape = ((wire.host, wire.port), wire.bytes_per_s, wire.latency_s)
            if known and (known.address, known.bytes_per_s, known.latency_s) == shape:
                links[wire.machine] = known
            else:
                links[wire.machine] = Link(
                    self.machine, self._secret, shape[0], self._failed, *shape[1:]
                )
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
        if self._engine is not None and self._thread is not None:
            self._engine.stop()
            self._thread.join()

    def _run(self) -> None:
        assert self._engine is not None
        try:
            self._engine.run()
        except BaseException:
            # Without its loop the machine is of no use: ending the process lets the head know.
            import traceback

            traceback.print_exc()
            os._exit(1)

    def _received(self, sender: int, message: Message, payload: bytearray) -> None:
        if self._engine is not None:
            self._engine.put(message, payload)

    def _send(self, machine: int, message: Message, payload: Buffer) -> None:
        link = self._links.get(machine)
        if link is None:
            self._failed(message)
        else:
            link.send(message, payload)

    def _failed(self, message: Message) -> None:
        """Tell the head of a pass that does not reach the next machine."""
        if isinstance(message, Pass) and HEAD in self._links:
            next_one = message.way[message.hop].machine
            why = f"machine {next_one} cannot be reached from machine {self.machine}"
            self._links[HEAD].send(Refused(message.key, self.machine, why))
