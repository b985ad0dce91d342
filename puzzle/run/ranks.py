"""Rank processes on this machine: start, watch, and end them together.

A rank that fails or dies ends the others within seconds, with one line that says which and why.
The ranks come from a fork server that has imported torch once.
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
from puzzle.run.member import Failure, Seat, live
from puzzle.run.settings import Backend, RankError

Result = TypeVar("Result")

CPU_RANKS = 16
"""Most gloo ranks started on one machine: each is a process of some 250 MB."""

_GRACE_S = 2.0
"""How long to listen on after the first failure, to find its cause."""
_LEAVE_S = 30.0
"""How long ranks may take to leave when all results are there; then they are ended."""
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
    timeout_s: float = 300.0,
    on_report: Callable[..., None] = lambda *_: None,
) -> list[Result]:
    """Run `task(rank, report, *arguments)` on `world` ranks; return their results by rank.

    `task` is a module's function; what it passes to `report` reaches `on_report` here. Raises
    `RankError` naming the rank that failed first, or its `InputError`; leaves no process.
    """
    # Threads that wait by spinning starve the other ranks where cores are few.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo"])
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder, _ended() as ranks:
        where = f"file://{folder}/rendezvous"
        for number in range(world):
            receive, send = context.Pipe(duplex=False)
            assert isinstance(receive, Connection)
            seat = Seat(number, world, backend, timeout_s, where)
            process = context.Process(
                target=live, args=(send, seat, task, arguments), name=f"rank-{number}", daemon=True
            )
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


def _listen(ranks: list[_Rank], on_report: Callable[..., None]) -> list[Result]:
    """Pass reports on until every rank has its result; raise for the first that has none.

    With all results there, a rank that cannot leave in peace spoils nothing.
    """
    results: dict[int, Result] = {}
    failures: list[Failure] = []
    talking = {rank.pipe: rank for rank in ranks}
    deadline = None
    while talking and (deadline is None or time.monotonic() < deadline):
        for pipe in wait(list(talking), None if deadline is None else 0.1):
            assert isinstance(pipe, Connection)
            rank = talking[pipe]
            try:
                kind, value = pipe.recv()
            except EOFError:
                del talking[pipe]
                if rank.number not in results and rank.number not in {f.rank for f in failures}:
                    failures.append(_death(rank))
                continue
            if kind == "report":
                on_report(*value)
            elif kind == "result":
                results[rank.number] = value
            else:
                failures.append(value)
        if deadline is None and (failures or len(results) == len(ranks)):
            deadline = time.monotonic() + (_GRACE_S if failures else _LEAVE_S)
    if len(results) < len(ranks):
        raise _cause(failures)
    return [results[rank.number] for rank in ranks]


def _death(rank: _Rank) -> Failure:
    """Describe a rank that ended without a word."""
    rank.process.join(_GRACE_S)
    code = rank.process.exitcode
    if code is None or code >= 0:
        reason = f"ended early with status {code}"
    else:
        name = signal.Signals(-code).name
        reason = f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return Failure(rank.number, True, time.monotonic(), reason)


def _cause(failures: list[Failure]) -> Exception:
    """Return the cause: a death before all else, otherwise the earliest failure.

    The others' failures only say that their peer is gone.
    """
    first = min(failures, key=lambda failure: (not failure.died, failure.when))
    for failure in failures:
        _log.debug("rank %d %s\n%s", failure.rank, failure.reason, failure.details)
    if first.mistake:
        return InputError(first.reason)
    return RankError(f"rank {first.rank} {first.reason}; the other ranks were stopped")


def check_machine(world: int, backend: Backend) -> None:
    """Raise InputError if this machine cannot hold the ranks."""
    if backend == "gloo" and world > CPU_RANKS:
        raise InputError(
            f"the plan needs {world} ranks, but at most {CPU_RANKS} CPU processes are started on"
            " one machine; use more machines under torchrun, or fewer devices"
        )
    if backend == "nccl" and "RANK" not in os.environ:
        import torch

        if torch.cuda.device_count() < world:
            raise InputError(
                f"the plan needs {world} GPUs, but this machine has {torch.cuda.device_count()};"
                " use more machines under torchrun, or --backend gloo for CPU processes"
            )


def check_memory(needed: float, backend: Backend) -> None:
    """Raise InputError if CPU ranks would need more bytes than this machine has in all."""
    if backend != "gloo" or not hasattr(os, "sysconf"):
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise InputError(
            f"the ranks' weights and optimizers need {needed / 2**30:.0f} GiB, but this machine has"
            f" {there / 2**30:.0f} GiB and no GPUs are used; run on GPUs (--backend nccl), on more"
            " machines under torchrun, or smaller models"
        )
