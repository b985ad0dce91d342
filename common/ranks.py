"""Rank processes on this machine: start, watch, name and end them together.

A rank that fails, dies or hangs ends the others within seconds, with one line that says which and
why; when the starting process is gone, the ranks leave too. They come from a fork server that has
imported torch once. torch.distributed.elastic's `start_processes` starts, ends and collects errors
as well, but knows no rank that hangs, passes nothing on before the end, leaves ranks behind when it
is killed, and makes its caller import torch; so these four are what is ours. Under torchrun its
agent starts and ends the ranks, and only the naming of those that hang is ours.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, NamedTuple, TypeVar

from common.errors import InputError, RankError
from common.member import Failure, Seat, failure_of, live, take_part

Backend = Literal["gloo", "nccl"]
Result = TypeVar("Result")

CPU_RANKS = 16
"""Most gloo ranks started on one machine: each is a process of some 250 MB."""
GRACE_S = 1.0
"""How long to listen to the other ranks after the first failure, to find its cause."""
LEAVE_S = 30.0
"""How long ranks may take to leave when all results are there; then they are ended."""
_log = logging.getLogger(__name__)


class _Rank(NamedTuple):
    number: int
    process: BaseProcess
    pipe: Any


def choose_backend(wanted: str = "") -> Backend:
    """Return the wanted backend, or nccl where CUDA is and gloo elsewhere."""
    import torch

    if wanted not in ("", "gloo", "nccl"):
        raise InputError(f"--backend is {wanted!r}, expected gloo or nccl")
    if wanted == "nccl" and not torch.cuda.is_available():
        raise InputError("--backend nccl needs an NVIDIA GPU and CUDA; use --backend gloo on CPUs")
    return "nccl" if wanted != "gloo" and torch.cuda.is_available() else "gloo"


def launch(
    task: Callable[..., Result], world: int, *arguments: Any, backend: Backend, timeout_s: float,
    on_report: Callable[..., None], needed_bytes: float = 0.0, eager: bool = True,
) -> Result:  # fmt: skip
    """Do the task on ranks started here and return rank 0's result, or as the rank of torchrun.

    `needed_bytes`: what all ranks' weights and optimizers hold, refused beforehand where CPU ranks
    would not have it. Under torchrun every rank returns its own result. Raises as `run_ranks`.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        check_machine(world, backend, needed_bytes)
        how: Any = {"backend": backend, "timeout_s": timeout_s, "eager": eager}
        return run_ranks(task, world, *arguments, on_report=on_report, **how)[0]
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    seat = Seat(int(os.environ["RANK"]), world, backend, timeout_s, here, eager)

    def tell(kind: str, value: Any) -> None:
        if kind == "report":
            on_report(*value)

    try:
        return take_part(seat, task, arguments, tell)
    except Exception as error:
        cause = failure_of(seat, error)
        raise _error(cause, "torchrun says which rank was first, and stops all") from error


def run_ranks(
    task: Callable[..., Result], world: int, *arguments: Any, backend: Backend = "gloo",
    timeout_s: float = 600.0, cores_for: int | None = None,
    on_report: Callable[..., None] = lambda *_: None, eager: bool = True,
) -> list[Result]:  # fmt: skip
    """Run `task(rank, report, *arguments)` on `world` ranks; return their results by rank.

    `task` is a module's function; what it passes to `report` reaches `on_report` here. The cores
    are shared out to `cores_for` ranks, or else to those that there are. `eager`: NCCL makes its
    communicators at once. Raises `RankError` naming the rank that was the cause, or its
    `InputError`; always leaves no process.
    """
    # Threads that wait by spinning starve the other ranks where cores are few.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context = multiprocessing.get_context("forkserver")
    # The second is what an optimizer's first step imports, in seconds.
    context.set_forkserver_preload(["torch", "torch._dynamo"])
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder, _ended() as ranks:
        for rank in range(world):
            receive, send = context.Pipe(duplex=False)
            where = f"file://{folder}/rendezvous"
            seat = Seat(rank, world, backend, timeout_s, cores_for or world, eager, where)
            asked = (send, seat, task, arguments)
            process = context.Process(target=live, args=asked, name=f"rank-{rank}", daemon=True)
            process.start()
            send.close()
            ranks.append(_Rank(rank, process, receive))
        return _listen(ranks, on_report)


@contextmanager
def _ended() -> Generator[list[_Rank]]:
    """Yield a list of ranks; end what is left of them on the way out."""
    ranks = list[_Rank]()
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.process.kill()  # a milder signal is not heard by one that is stopped
        for rank in ranks:
            rank.process.join()
            rank.pipe.close()


def _listen(ranks: list[_Rank], on_report: Callable[..., None]) -> list[Any]:
    """Pass reports on until every rank has its result; raise for the one that is the cause."""
    results, failures = dict[int, Any](), dict[int, Failure]()
    talking, end = {rank.pipe: rank for rank in ranks}, float("inf")
    while talking and time.monotonic() < end:
        for pipe in wait(list(talking), 0.1):
            number, process, _ = talking[pipe]
            kind, value = _message(pipe)
            if kind == "report":
                on_report(*value)
            elif kind == "end":
                del talking[pipe]
                if number not in {*results, *failures}:
                    failures[number] = _death(number, process)
            else:
                (results if kind == "result" else failures)[number] = value
        if failures or len(results) == len(ranks):
            # One that cannot leave in peace spoils nothing when all results are there.
            patience = GRACE_S if len(results) < len(ranks) else LEAVE_S
            end = min(end, time.monotonic() + patience)
    if len(results) == len(ranks):
        return [results[rank.number] for rank in ranks]
    for failure in failures.values():
        _log.debug("%s\n%s", failure.reason, failure.details)
    # What a rank says that waited in vain counts last: it tells of another.
    cause = min(failures.values(), key=lambda f: (f.waited, not f.died, f.when))
    raise _error(cause, "the other ranks were stopped")


def _message(pipe: Any) -> tuple[str, Any]:
    try:
        return pipe.recv()
    except EOFError:
        return "end", None


def _error(cause: Failure, then: str) -> Exception:
    if cause.mistake:
        return InputError(cause.reason)
    return RankError(f"{cause.reason}; {then}", out_of_memory=cause.out_of_memory)


def _death(rank: int, process: BaseProcess) -> Failure:
    """Describe a rank that ended without a word."""
    process.join(GRACE_S)
    code = process.exitcode
    killed, reason = code == -signal.SIGKILL, f"ended early with status {code}"
    if code is not None and code < 0:
        reason = f"was killed by {signal.Signals(-code).name}{' (out of memory?)' * killed}"
    return Failure(time.monotonic(), f"rank {rank} {reason}", died=True, out_of_memory=killed)


def check_machine(
    world: int, backend: Backend, needed_bytes: float = 0.0, what: str = "the plan"
) -> None:
    """Raise `InputError` if this machine cannot hold the ranks, or the bytes they need in all."""
    if backend == "nccl":
        import torch

        if (there := torch.cuda.device_count()) < world:
            raise InputError(
                f"{what} needs {world} GPUs, but this machine has {there}; use more machines under"
                " torchrun, or --backend gloo for CPU processes"
            )
        return
    if world > CPU_RANKS:
        raise InputError(
            f"{what} needs {world} ranks, but at most {CPU_RANKS} CPU processes are started on"
            " one machine; use more machines under torchrun, or fewer ranks"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed_bytes > memory:
        raise InputError(
            f"the ranks' weights and optimizers need {needed_bytes / 2**30:.0f} GiB, but this"
            f" machine has {memory / 2**30:.0f} GiB and no GPUs are used; run on GPUs with"
            " --backend nccl, on more machines under torchrun, or a smaller model"
        )
