"""One rank's life in a process of its own: join the others, do the task, tell the result.

The starter's side is `vocab_parallel.run.ranks`; under torchrun only `join` and `leave` are used.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import parent_process
from typing import NamedTuple

from common.errors import InputError
from vocab_parallel.run.settings import Backend

START_S = 120.0
"""How long a rank waits for the others to start, at least."""


class Seat(NamedTuple):
    """A rank's number, and where and how long it waits for the others."""

    rank: int
    world: int
    backend: Backend
    timeout_s: float
    cores_for: int
    where: str


class Failure(NamedTuple):
    """Why a rank ended early; `died` when it could not say it itself."""

    rank: int
    died: bool
    when: float
    reason: str
    details: str = ""
    mistake: bool = False
    out_of_memory: bool = False
    waited: bool = False
    """It waited in vain for another rank, longer than the timeout."""


def live(
    pipe: Connection,
    seat: Seat,
    task: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    """Live as a rank: join the others, do the task, send the result or the failure."""
    rank, world = seat.rank, seat.world
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the starter, which ends us
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    os.environ["LOCAL_WORLD_SIZE"] = str(seat.cores_for)
    # All ranks are on this machine, whose own name need not resolve to an address.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    with _telling(pipe, rank):
        join(rank, world, backend=seat.backend, timeout_s=seat.timeout_s, where=seat.where)
        result = task(rank, lambda *value: pipe.send(("report", value)), *arguments)
        pipe.send(("result", result))
        leave()


def join(rank: int, world: int, *, backend: Backend, timeout_s: float, where: str) -> None:
    """Enter the process group as one rank, with this machine's cores shared out to its ranks.

    For its start every rank has `START_S`, however soon it must answer afterwards: on a busy
    machine, importing torch alone can take longer than that.
    """
    import torch
    import torch.distributed as dist

    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", world))
    torch.set_num_threads(max(1, available_cores() // here))
    if backend == "nccl":
        torch.cuda.set_device(local)
    dist.init_process_group(
        backend,
        init_method=where,
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=max(timeout_s, START_S)),
        device_id=torch.device("cuda", local) if backend == "nccl" else None,
    )
    dist.barrier()
    # The only way to change it later; torch has no public name for it.
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_s))


def leave() -> None:
    """Leave the process group when every rank has come here."""
    import torch.distributed as dist

    dist.barrier()
    dist.destroy_process_group()


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def failure_of(rank: int, error: BaseException) -> Failure:
    """Describe an error of one rank."""
    mistake, line = isinstance(error, InputError), " ".join(str(error).split())
    return Failure(
        rank,
        False,
        time.monotonic(),
        line if mistake else f"failed: {type(error).__name__}: {line[:300]}",
        "".join(traceback.format_exception(error)),
        mistake,
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError",
        # torch has no type of its own for it: gloo's texts are "Wait timeout", "Timed out ...".
        any(word in line.lower() for word in ("timeout", "timed out")),
    )


class _telling:  # noqa: N801  a context manager, used like a function
    """Send an error to the starter in place of a traceback on every rank's stderr."""

    def __init__(self, pipe: Connection, rank: int) -> None:
        self.pipe, self.rank = pipe, rank

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if error is None:
            return
        self.pipe.send(("failure", failure_of(self.rank, error)))
        os._exit(1)  # other threads may hang in a collective that never ends


def _leave_with_parent() -> None:
    """End this process when the one that started it is gone, even by SIGKILL."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
