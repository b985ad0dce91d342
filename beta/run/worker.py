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
from collections import deque
from datetime import timedelta
from typing import NamedTuple

import ray
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from beta.inputs.shapes import Shape
from beta.run.specs import Backend, GroupSpec, ModelSpec
from beta.run.stage import Place, Shard, Stage, make_stage
from common.errors import InputError

EXCHANGE_TIMEOUT = timedelta(seconds=600)
"""Idle groups wait in no exchange, so only a hung peer takes that long; the manager is faster."""
MOST_SENDING = 8
SIOCGIFADDR = 0x8915
"""Linux: the address of an interface."""


class Address(NamedTuple):
    """Where the workers of a group meet."""

    host: str
    port: int


class _Sending(NamedTuple):
    work: dist.Work
    kept: torch.Tensor
    """Must stay as it is until the work is done."""

    def wait(self) -> None:
        self.work.wait()


class StageWorker:
    """Rank `stage * op + shard` of its group; wrapped as a Ray actor by the manager."""

    def __init__(self, group: GroupSpec, rank: int, backend: Backend, delay: bool, threads: int):
        torch.set_num_threads(threads)
        stage, part = divmod(rank, group.op)
        self.group, self.rank, self.backend, self.delay = group, rank, backend, delay
        self.shard = Shard(stage, group.pp, part, group.op)
        cuda = backend == "nccl"
        self.place = Place(
            torch.device("cuda", 0) if cuda else torch.device("cpu"),
            torch.float16 if cuda else torch.float32,
        )
        self.stages = dict[int, Stage]()
        self.within: dist.ProcessGroup | None = None
        self.sending = deque[_Sending]()
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
        """Enter the group's process group, and the sub-group of the stage."""
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
        )
        for stage in range(self.group.pp):
            ranks = [stage * self.group.op + part for part in range(self.group.op)]
            made = dist.new_group(ranks)
            if stage == self.shard.stage:
                assert isinstance(made, dist.ProcessGroup)
                self.within = made

    def load(self, number: int, model: ModelSpec) -> None:
        """Make this worker's part of a model."""
        if not self.delay:
            shard = self.shard
            self.stages[number] = make_stage(
                model.shape, model.seed, shard, self.place, self._sum if shard.op > 1 else _same
            )

    @torch.inference_mode()
    def step(self, number: int, tokens: list[int], issued: float) -> list[float] | None:
        """Do this stage's part of a request issued then; the last stage returns the logits."""
        if self.delay:
            return self._wait(number, issued)
        stage = self.stages[number]
        if self.shard.stage == 0:
            x = torch.tensor([tokens], device=self.place.device)
        else:
            x = stage.activations(1, len(tokens))
            dist.recv(x, self.rank - self.shard.op)
        y = stage(x)
        if self.shard.stage < self.shard.stages - 1:
            self._send(y)
            return None
        return y[0].float().tolist() if self.shard.rank == 0 else None

    def _wait(self, number: int, issued: float) -> list[float] | None:
        """Take exactly as long as profiled, from when the request is there and the device is free.

        Like a device that is handed work ahead, it does not idle while this process is called: the
        stages hand on when they were done, on the clock that all processes of a machine share. The
        answer is empty.
        """
        there = torch.tensor([issued], dtype=torch.float64)
        if self.shard.stage:
            dist.recv(there, self.rank - self.shard.op)
        seconds = self.group.stage_s[number][self.shard.stage]
        self.free = max(self.free, float(there)) + seconds
        time.sleep(max(self.free - time.monotonic(), 0))
        if self.shard.stage < self.shard.stages - 1:
            self._send(torch.tensor([self.free], dtype=torch.float64))
            return None
        return [] if self.shard.rank == 0 else None

    def _send(self, x: torch.Tensor) -> None:
        """Hand activations on without waiting until they are taken; a few may be under way."""
        if len(self.sending) == MOST_SENDING:
            self.sending.popleft().wait()
        sent = x.contiguous()
        work = dist.isend(sent, self.rank + self.shard.op)
        assert work is not None
        self.sending.append(_Sending(work, sent))

    def _sum(self, x: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(x, group=self.within)
        return x


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


def tokens_of(shape: Shape, seed: int = 0) -> list[int]:
    """Return a request of full length for a model: what warm-ups and profiles use."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.vocabulary, (shape.sequence,), generator=generator).tolist()
