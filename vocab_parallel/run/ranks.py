"""Rank processes on this machine: start, watch, and end them together.

A rank that fails or dies ends the others within seconds; when the starting process is gone, the
ranks leave too. The ranks come from a fork server that has imported torch once.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple, TypeVar

from common.errors import InputError
from vocab_parallel.run.member import Failure, Seat, live
from vocab_parallel.run.settings import Backend, RankError

Result = TypeVar("Result")
Report = Callable[..., None]

CPU_RANKS = 16
"""Most gloo ranks started on one machine: each is a process of about 250 MB."""

_GRACE_S = 2.0
"""How long to listen to the other ranks after the first failure, to find its cause."""
_PRELOAD = ["torch", "torch._dynamo"]
"""Imported once for all ranks; the second is what an optimizer's first step imports, in seconds."""
_log = logging.getLogger(__name__)


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
    are shared out to `cores_for` ranks, or else to those that there are. Raises `RankError` naming
    the rank that failed first, or its `InputError`; always leaves no process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder, _ended() as ranks:
        for number in range(world):
            receive, send = context.Pipe(duplex=False)
            assert isinstance(receive, Connection)
            where = f"file://{folder}/rendezvous"
            seat = Seat(number, world, backend, timeout_s, cores_for or world, where)
            process = context.Process(
                target=live, args=(send, seat, task, arguments), name=f"rank-{number}"
            )
            process.daemon = True
            process.start()
            send.close()
            ranks.append(_Rank(number, process, receive))
        return _listen(ranks, on_report, timeout_s)


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


def _listen(ranks: list[_Rank], on_report: Report, timeout_s: float) -> list[Result]:
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
        silent = [rank.number for rank in open_pipes.values() if not _told(failures, rank)]
        raise _error(failures, [number for number in silent if number not in results], timeout_s)
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


def _error(failures: list[Failure], silent: list[int], timeout_s: float) -> Exception:
    """Return the cause: a death before all else, otherwise the earliest failure.

    The failures of the other ranks only say that their peer is gone. Where the earliest waited in
    vain, those that hang are the ranks of which nothing was heard.
    """
    cause = min(failures, key=lambda failure: (not failure.died, failure.when))
    for failure in failures:
        _log.debug("rank %d %s\n%s", failure.rank, failure.reason, failure.details)
    if cause.mistake:
        return InputError(cause.reason)
    message = f"rank {cause.rank} {cause.reason}; the other ranks were stopped"
    if cause.waited and not cause.died:
        hung = f"rank {', '.join(map(str, silent))} hangs" if silent else "another rank hung"
        message = (
            f"{hung}: rank {cause.rank} waited {timeout_s:g} s (training.timeout_s) in vain; all"
            " ranks were stopped"
        )
    return RankError(message, out_of_memory=cause.out_of_memory)


def check_memory(needed: float, backend: Backend) -> None:
    """Raise `InputError` if CPU ranks would need more bytes than this machine has in all."""
    if backend == "gloo" and hasattr(os, "sysconf"):
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there:
            raise InputError(
                f"the ranks' weights and optimizer need {needed / 2**30:.0f} GiB, but this machine"
                f" has {there / 2**30:.0f} GiB and no GPUs are used; run on GPUs with --backend"
                " nccl, on more machines under torchrun, or a smaller model"
            )


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
