"""A stage worker: one device of a group, which holds one shard of one stage of all its models.

It does what its manager calls, in the order of the calls: wait for the activations from the stage
before (torch.distributed), compute, hand them on. All workers of a group are called alike, so sends
and receives meet in order.
"""

import fcntl
import os
import socket
import struct
import threading
import time
from datetime import timedelta
from typing import NamedTuple

import ray
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from beta.inputs.shapes import Shape
from beta.run.exchange import Exchange
from beta.run.specs import GroupSpec, ModelSpec
from beta.run.stage import Place, Shard, Stage, make_stage
from common.errors import InputError
from common.ranks import Backend

EXCHANGE_TIMEOUT = timedelta(seconds=600)
"""Idle groups wait in no exchange, so only a hung peer takes that long; the manager is faster."""
SIOCGIFADDR = 0x8915
"""Linux: the address of an interface."""


class Address(NamedTuple):
    """Where the workers of a group meet."""

    host: str
    port: int


class StageWorker:
    """Rank `stage * op + shard` of its group; wrapped as a Ray actor by the manager."""

    def __init__(self, group: GroupSpec, rank: int, backend: Backend, wait: float, threads: int):
        torch.set_num_threads(threads)
        stage, part = divmod(rank, group.op)
        self.group, self.rank, self.backend, self.wait = group, rank, backend, wait
        self.shard = Shard(stage, group.pp, part, group.op)
        cuda = backend == "nccl"
        self.place = Place(
            torch.device("cuda", 0) if cuda else torch.device("cpu"),
            torch.float16 if cuda else torch.float32,
        )
        self.stages, self.models = dict[int, Stage](), dict[int, ModelSpec]()
        self.exchange: Exchange | None = None
        self.free = 0.0

    def pid(self) -> int:
        """Return the process id."""
        return os.getpid()

    def live(self) -> None:
        """Never return: a caller learns at once when this process is gone."""
        threading.Event().wait()

    def open(self) -> Address:
        """Start the group's meeting place (rank 0) at any free port of this node."""
        host = ray.util.get_node_ip_address()
        self.store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        return Address(host, self.store.port)

    def join(self, address: Address) -> None:
        """Enter the group's process group and make its communicators."""
        if self.group.devices == 1:
            return
        if self.rank:
            self.store = TCPStore(*address, is_master=False)
        if self.backend == "gloo":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface_of(address.host))
        dist.init_process_group(
            self.backend,
            store=self.store,
            rank=self.rank,
            world_size=self.group.devices,
            timeout=EXCHANGE_TIMEOUT,
            # NCCL connects at once, and every later group is split off in one order.
            device_id=self.place.device if self.backend == "nccl" else None,
        )
        self.exchange = Exchange(self.rank, self.group.op, self.group.pp, self.place.device)

    def load(self, number: int, model: ModelSpec) -> None:
        """Make this worker's part of a model."""
        self.models[number] = model
        if not self.wait:
            shard, exchange = self.shard, self.exchange
            total = exchange.sum if exchange is not None and shard.op > 1 else _same
            self.stages[number] = make_stage(model.shape, model.seed, shard, self.place, total)

    def sample(self, number: int) -> float:
        """Return by how much the first layer here is off the reference's, as it is served."""
        from beta.run.reference import layer_difference

        return layer_difference(self.stages[number], self.models[number])

    @torch.inference_mode()
    def step(
        self, number: int, tokens: list[list[int]], taken_at: float, skip: bool
    ) -> list[list[float]] | None:
        """Do this stage's part of a batch taken on then; the last returns each request's logits.

        Where it was dropped, only its activations are taken: `skip`.
        """
        if self.wait:
            return self._wait(number, len(tokens), taken_at, skip)
        stage, lengths = self.stages[number], [len(each) for each in tokens]
        if self.shard.stage == 0:
            x = padded(tokens).to(self.place.device)
        else:
            x = stage.activations(len(tokens), max(lengths))
            self._exchange().receive(x)
        if skip:
            return None
        y = stage(x, lengths)
        if self.place.device.type == "cuda":  # the manager counts on it: done is done
            torch.cuda.current_stream().synchronize()
        if self.shard.stage < self.shard.stages - 1:
            self._exchange().send(y)
            return None
        return y.float().tolist() if self.shard.rank == 0 else None

    def _wait(
        self, number: int, size: int, taken_at: float, skip: bool
    ) -> list[list[float]] | None:
        """Take exactly as long as profiled, from when the requests are there and the device free.

        Like a device that is handed work ahead, it does not idle while this process is called: the
        stages hand on when they were done, on the clock that all processes of a machine share. The
        answers are empty.
        """
        there = torch.tensor([taken_at], dtype=torch.float64)
        if self.shard.stage:
            self._exchange().receive(there)
        if skip:
            return None
        seconds = self.wait * self.group.stage_s[number][size][self.shard.stage]
        self.free = max(self.free, float(there)) + seconds
        time.sleep(max(self.free - time.monotonic(), 0))
        if self.shard.stage < self.shard.stages - 1:
            self._exchange().send(torch.tensor([self.free], dtype=torch.float64))
            return None
        return [[]] * size if self.shard.rank == 0 else None

    def _exchange(self) -> Exchange:
        assert self.exchange is not None, "a group of one device has one stage"
        return self.exchange


def interface_of(host: str) -> str:
    """Return the network interface of an address of this machine, which gloo wants by name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(asking.fileno(), SIOCGIFADDR, request)
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(answer[20:24]) == host:
                return name
    raise InputError(f"no network interface of this machine has the address {host}")


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def padded(tokens: list[list[int]]) -> torch.Tensor:
    """Return token ids as (batch, longest), shorter ones filled up at their end."""
    longest = max(map(len, tokens))
    return torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in tokens])


def tokens_of(shape: Shape, seed: int = 0) -> list[int]:
    """Return a request of full length for a model: what warm-ups and profiles use."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.vocabulary, (shape.sequence,), generator=generator).tolist()
