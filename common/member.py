"""One rank: join the others, do the task, say why it ended early.

A rank that waits in vain only knows that another is at fault. Which one, it finds by asking all
where they are, on the process group's store: a rank that hangs answers from elsewhere than a wait
for others (asleep, in an endless loop) or not at all (stopped).
"""

from __future__ import annotations

import importlib
import linecache
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from common.errors import InputError
from common.spread import cores

Result = TypeVar("Result")
Tell = Callable[[str, Any], None]
START_S = 120.0
"""How long a rank waits for the others to start, at least: importing torch takes long enough."""
LOOK_S, ASK_S = 0.3, 2.5
"""How often a rank looks whether it is asked where it is, and how long its answer may take."""
WAITS = "waits"


class Seat(NamedTuple):
    """A rank's number, and where and how long it waits for the others."""

    rank: int
    world: int
    backend: str
    timeout_s: float
    cores_for: int
    eager: bool
    where: str = "env://"


class Failure(NamedTuple):
    """Why a rank ended early; `waited`: for another rank, so that the cause is there."""

    when: float
    reason: str
    died: bool = False
    mistake: bool = False
    out_of_memory: bool = False
    waited: bool = False
    details: str = ""


def live(pipe: Any, seat: Seat, task: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Take part as a process of `common.ranks`: send reports, the result, or why there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the starter, which ends us
    os.environ.update(RANK=str(seat.rank), WORLD_SIZE=str(seat.world), LOCAL_RANK=str(seat.rank))
    os.environ["LOCAL_WORLD_SIZE"] = str(seat.cores_for)
    # All ranks are here, and a machine's own name need not resolve to an address.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    try:
        take_part(seat, task, arguments, lambda kind, value: pipe.send((kind, value)))
    except BaseException as error:
        pipe.send(("failure", failure_of(seat, error)))
        os._exit(1)  # other threads may hang in a collective that never ends


def take_part(
    seat: Seat, task: Callable[..., Result], arguments: tuple[Any, ...], tell: Tell
) -> Result:
    """Join, do the task, `tell` its reports and its result, and leave."""
    left, boards = threading.Event(), list[Any]()
    threading.Thread(target=_look, args=(seat.rank, left, boards), daemon=True).start()
    join(seat)
    boards.append(_board())

    def report(*values: object) -> None:
        tell("report", values)

    result = task(seat.rank, report, *arguments)
    tell("result", result)
    leave()
    left.set()
    return result


def join(seat: Seat) -> None:
    """Enter the process group, with this machine's cores shared out to its ranks.

    For its start every rank has `START_S`, however soon it must answer afterwards.
    """
    torch, dist = importlib.import_module("torch"), _distributed()
    torch.set_num_threads(max(1, cores() // seat.cores_for))
    device = None
    if seat.backend == "nccl":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group(
        seat.backend, init_method=seat.where, rank=seat.rank, world_size=seat.world,
        timeout=timedelta(seconds=max(seat.timeout_s, START_S)),
        device_id=device if seat.eager else None,
    )  # fmt: skip
    dist.barrier()
    # The only way to change it later; torch has no public name for it.
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seat.timeout_s))


def leave() -> None:
    """Leave the process group when every rank has come here."""
    dist = _distributed()
    dist.barrier()
    dist.destroy_process_group()


def _distributed() -> Any:
    return importlib.import_module("torch.distributed")


def failure_of(seat: Seat, error: BaseException) -> Failure:
    """Describe an error; whether it waited is seen by where it was, not by what it says."""
    when, line = time.monotonic(), " ".join(str(error).split())
    mistake, reason = isinstance(error, InputError), f"{type(error).__name__}: {line[:300]}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    waited = isinstance(error, RuntimeError) and _waits(last.filename, last.lineno)
    reason = f"rank {seat.rank} failed: {reason}"
    with suppress(RuntimeError):  # the store is gone
        reason = _hung(seat, ask=waited) or reason
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    details = "".join(traceback.format_exception(error))
    return Failure(when, line if mistake else reason, False, mistake, memory, waited, details)


def _hung(seat: Seat, *, ask: bool) -> str:
    """Let the others know that this rank failed; return which hang and where, if it asks."""
    board, others = _board(), {*range(seat.world)} - {seat.rank}
    if board is None or board.set(f"failed/{seat.rank}", "") or not ask:
        return ""
    board.set("asked", "")
    until = time.monotonic() + ASK_S
    while time.monotonic() < until:
        time.sleep(LOOK_S / 5)
        others = {rank for rank in others if not board.check([f"failed/{rank}"])}
        if all(board.check([f"place/{rank}"]) for rank in others):
            break
    at = {r: board.check([f"place/{r}"]) and board.get(f"place/{r}").decode() for r in others}
    hangs = {r: place or "gives no answer" for r, place in sorted(at.items()) if place != WAITS}
    where = ", ".join(f"rank {r} {place}" for r, place in hangs.items())
    vain = f"rank {seat.rank} waited {seat.timeout_s:g} s (timeout_s) in vain"
    return f"rank {', '.join(map(str, hangs))} hangs: {vain}, {where}" if hangs else ""


def _board() -> Any:
    """Return a connection of its own to the process group's store."""
    dist = _distributed()
    return dist.distributed_c10d._get_default_store().clone() if dist.is_initialized() else None


def _look(rank: int, left: threading.Event, boards: list[Any]) -> None:
    """Write where the main thread is while asked; end when the starter is gone, even by SIGKILL."""
    starter = parent_process()
    with suppress(RuntimeError):  # the store is gone
        while not left.wait(LOOK_S):
            if starter and not starter.is_alive():
                os._exit(1)
            if boards and boards[0].check(["asked"]):
                frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
                frame = frames[threading.main_thread().ident or 0]
                file, line = frame.f_code.co_filename, frame.f_lineno
                place = WAITS if _waits(file, line) else f"is at line {line} of {Path(file).name}"
                boards[0].set(f"place/{rank}", place)


def _waits(file: str, line: int | None) -> bool:
    """Say whether a line of code is a wait for other ranks."""
    return "torch/distributed" in file or "wait(" in linecache.getline(file, line or 0)
