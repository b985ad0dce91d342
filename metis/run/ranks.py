"""Rank processes on this machine: start, watch, and end them together.

A rank that fails or dies ends the others within seconds; when the starting process is gone, the
ranks leave too. The ranks come from a fork server that has imported torch once.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, parent_process
from typing import NamedTuple, TypeVar

from common.errors import InputError
from metis.run.settings import Backend, RankError

Result = TypeVar("Result")
Report = Callable[..., None]

CPU_RANKS = 16
"""Most gloo ranks started on one machine: each is a process of about 250 MB."""

_GRACE_S = 2.0
"""How long to listen to the other ranks after the first failure, to find its cause."""
_PRELOAD = ["torch", "torch._dynamo"]
"""Imported once for all ranks; the second is what an optimizer's first step imports, in seconds."""
_log = logging.getLogger(__name__)


class Failure(NamedTuple):
    """Why a rank ended early; `died` when it could not say it itself."""

    rank: int
    died: bool
    when: float
    reason: str
    details: str = ""
    mistake: bool = False
    out_of_memory: bool = False


class _Setting(NamedTuple):
    rank: int
    world: int
    backend: Backend
    timeout_s: float
    cores_for: int
    where: str


class _Rank(NamedTuple):
    number: int
    process: BaseProcess
    pipe: Connection


def run_ranks(
    task: Callable[..., Result],
    world: int,
    *arguments: object,
    backend: Backend = "gloo",
    timeout_s: float = 600.0,
    cores_for: int | None = None,
    on_report: Report = lambda *_: None,
) -> list[Result]:
    """Run `task(rank, report, *arguments)` on `world` ranks and return their results by rank.

    `task` is a module's function. What it passes to `report` reaches `on_report` here. The cores
    are shared out to `cores_for` ranks, as many as there are unless given. Raises `RankError` naming the rank that failed first, or its `InputError`; always leaves no process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder, _ended() as ranks:
        for number in range(world):
            receive, send = context.Pipe(duplex=False)
            assert isinstance(receive, Connection)
            where = f"file://{folder}/rendezvous"
            setting = _Setting(number, world, backend, timeout_s, cores_for or world, where)
            process = context.Process(
                target=_enter, args=(send, setting, task, arguments), name=f"rank-{number}"
            )
            process.daemon = True
            process.start()
            send.close()
            ranks.append(_Rank(number, process, receive))
        return _listen(ranks, on_report)


@contextmanager
def _ended() -> Iterator[list[_Rank]]:
    """Yield a list of ranks; end what is left of them on the way out."""
    ranks: list[_Rank] = []
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.process.terminate()
        for rank in ranks:
            rank.process.join(3)
            if rank.process.is_alive():
                rank.process.kill()
                rank.process.join()
            rank.pipe.close()


def _listen(ranks: list[_Rank], on_report: Report) -> list[Result]:
    """Pass reports on until every rank has its result; raise for the first that has none."""
    results: dict[int, Result] = {}
    failures: list[Failure] = []
    open_pipes = {rank.pipe: rank for rank in ranks}
    deadline = None
    while open_pipes and (deadline is None or time.monotonic() < deadline):
        for pipe in wait(list(open_pipes), None if deadline is None else 0.1):
            assert isinstance(pipe, Connection)
            try:
                kind, value = pipe.recv()
            except EOFError:
                rank = open_pipes.pop(pipe)
                if rank.number not in results and not _told(failures, rank):
                    failures.append(_death(rank))
                continue
            if kind == "report":
                on_report(*value)
            elif kind == "result":
                results[open_pipes[pipe].number] = value
            else:
                failures.append(value)
        if failures and deadline is None:
            deadline = time.monotonic() + _GRACE_S
    if failures:
        raise _error(failures)
    return [results[rank.number] for rank in ranks]


def _told(failures: list[Failure], rank: _Rank) -> bool:
    return any(failure.rank == rank.number for failure in failures)


def _death(rank: _Rank) -> Failure:
    """Describe a rank that ended without a word."""
    rank.process.join(_GRACE_S)
    code = rank.process.exitcode
    killed = code == -signal.SIGKILL
    if code is None or code >= 0:
        reason = f"ended early with status {code}"
    else:
        reason = (
            f"was killed by {signal.Signals(-code).name}{' (out of memory?)' if killed else ''}"
        )
    return Failure(rank.number, True, time.monotonic(), reason, out_of_memory=killed)


def _error(failures: list[Failure]) -> Exception:
    """Return the cause: a death before all else, otherwise the earliest failure.

    The failures of the other ranks only say that their peer is gone.
    """
    cause = min(failures, key=lambda failure: (not failure.died, failure.when))
    for failure in failures:
        _log.debug("rank %d %s\n%s", failure.rank, failure.reason, failure.details)
    if cause.mistake:
        return InputError(cause.reason)
    message = f"rank {cause.rank} {cause.reason}; the other ranks were stopped"
    return RankError(message, out_of_memory=cause.out_of_memory)


def _enter(
    pipe: Connection,
    setting: _Setting,
    task: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    """Live as a rank: join the others, do the task, send the result or the failure."""
    rank, world = setting.rank, setting.world
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the starter, which ends us
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    os.environ["LOCAL_WORLD_SIZE"] = str(setting.cores_for)
    # All ranks are on this machine, whose own name need not resolve to an address.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    with _telling(pipe, rank):
        join(rank, world, backend=setting.backend, timeout_s=setting.timeout_s, where=setting.where)
        result = task(rank, lambda *value: pipe.send(("report", value)), *arguments)
        pipe.send(("result", result))
        leave()


def join(rank: int, world: int, *, backend: Backend, timeout_s: float, where: str) -> None:
    """Enter the process group as one rank, with this machine's cores shared out to its ranks."""
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
        device_id=torch.device("cuda", local) if backend == "nccl" else None,
    )


def leave() -> None:
    """Leave the process group when every rank has come here."""
    import torch.distributed as dist

    dist.barrier()
    dist.destroy_process_group()


def check_machine(world: int, backend: Backend, what: str) -> None:
    """Raise `InputError` if this machine cannot hold the ranks that `what` needs."""
    if backend == "gloo" and world > CPU_RANKS:
        raise InputError(
            f"{what} needs {world} ranks, but at most {CPU_RANKS} CPU processes are started on"
            " one machine; use more machines under torchrun, or fewer ranks"
        )
    if backend == "nccl":
        import torch

        if torch.cuda.device_count() < world:
            raise InputError(
                f"{what} needs {world} GPUs, but this machine has {torch.cuda.device_count()};"
                " use more machines under torchrun, or the backend gloo for CPU processes"
            )


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
        mistake = isinstance(error, InputError)
        line = " ".join(str(error).split())
        reason = line if mistake else f"failed: {type(error).__name__}: {line[:300]}"
        details = "".join(traceback.format_exception(error))
        full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        failure = Failure(self.rank, False, time.monotonic(), reason, details, mistake, full)
        self.pipe.send(("failure", failure))
        os._exit(1)  # other threads may hang in a collective that never ends


def _leave_with_parent() -> None:
    """End this process when the one that started it is gone, even by SIGKILL."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
