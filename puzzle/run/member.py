"""One rank's life in a process of its own; the starter's side is `puzzle.run.ranks`."""

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
from puzzle.run.settings import Backend


class Seat(NamedTuple):
    """A rank's number, and where and how long it waits for the others."""

    rank: int
    world: int
    backend: Backend
    timeout_s: float
    where: str


class Failure(NamedTuple):
    """Why a rank ended early; `died` where it could not say so itself."""

    rank: int
    died: bool
    when: float
    reason: str
    details: str = ""
    mistake: bool = False


def live(
    pipe: Connection, seat: Seat, task: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    """Join the others, do the task, send its result or why there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the starter, which ends us
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    rank, world = seat.rank, seat.world
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    os.environ["LOCAL_WORLD_SIZE"] = str(world)
    # All ranks are here, and a machine's own name need not resolve to an address.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    try:
        join(rank, world, backend=seat.backend, timeout_s=seat.timeout_s, where=seat.where)
        result = task(rank, lambda *value: pipe.send(("report", value)), *arguments)
        pipe.send(("result", result))
        leave()
    except BaseException as error:
        pipe.send(("failure", _failure(rank, error)))
        os._exit(1)  # other threads may hang in a collective that never ends


def _failure(rank: int, error: BaseException) -> Failure:
    mistake, line = isinstance(error, InputError), " ".join(str(error).split())
    reason = line if mistake else f"failed: {type(error).__name__}: {line[:300]}"
    details = "".join(traceback.format_exception(error))
    return Failure(rank, False, time.monotonic(), reason, details, mistake)


def join(rank: int, world: int, *, backend: Backend, timeout_s: float, where: str) -> None:
    """Enter the process group, with this machine's cores shared out to its ranks."""
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
        timeout=timedelta(seconds=timeout_s),
    )


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


def _leave_with_parent() -> None:
    """End this process when the one that started it is gone, even by SIGKILL."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
