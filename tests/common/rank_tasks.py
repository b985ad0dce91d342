"""What ranks do in the tests of `common.ranks`; as a script, one of these under torchrun."""

import os
import signal
import sys
import time
from collections.abc import Callable

from common.errors import InputError
from common.log import guard
from common.ranks import launch, run_ranks

TIMEOUT_S = 4.0
"""How long ranks wait for each other."""
FOREVER_S = 3600.0
Report = Callable[..., None]


def tell(rank: int, report: Report, value: str) -> tuple[int, str]:
    report(rank, "hello")
    return rank, value


def die(rank: int, report: Report) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    wait_for_all(report)


def fail(rank: int, report: Report) -> None:
    if rank == 1:
        raise ZeroDivisionError("of no\nuse")
    wait_for_all(report)


def fail_while_others_sleep(rank: int, report: Report) -> None:
    if rank == 1:
        raise ZeroDivisionError("of no\nuse")
    time.sleep(FOREVER_S)


def mistake(rank: int, report: Report) -> None:
    if rank == 1:
        raise InputError("the widget is broken; mend it")
    wait_for_all(report)


def sleep(rank: int, report: Report) -> None:
    if rank == 0:
        time.sleep(FOREVER_S)
    wait_for_all(report)


def loop(rank: int, report: Report) -> None:
    while rank == 0:
        pass
    wait_for_all(report)


def stop(rank: int, report: Report) -> None:
    if rank == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    wait_for_all(report)


def come_late(rank: int, report: Report) -> None:
    """Rank 2 begins to wait so late that it still waits well when rank 1 gives up."""
    if rank == 2:
        time.sleep(TIMEOUT_S - 1)
    sleep(rank, report)


def leave_silently(rank: int, report: Report) -> None:
    if rank == 1:
        os._exit(3)
    wait_for_all(report)


def disagree(rank: int, report: Report) -> None:
    """No rank hangs: torch refuses what all ask for."""
    import torch
    import torch.distributed as dist

    dist.all_reduce(torch.zeros(1, dtype=torch.int16))


def stay(rank: int, report: Report) -> int:
    """Give a result, but never leave."""
    if rank == 1:
        from common import member

        member.leave = lambda: time.sleep(FOREVER_S)
    return rank


def sleep_all(rank: int, report: Report) -> None:
    report(rank)
    time.sleep(FOREVER_S)


def train(rank: int, report: Report) -> None:
    """Work together without end."""
    import torch
    import torch.distributed as dist

    report(rank)
    while True:
        dist.all_reduce(torch.zeros(1000))


def say_both(rank: int, report: Report) -> None:
    import torch.distributed as dist

    wait_for_all(lambda *_: None)
    report(f"rank {rank} of {dist.get_world_size()}")


def wait_for_all(report: Report) -> None:
    """Say when this rank begins to wait, and wait."""
    import torch
    import torch.distributed as dist

    report("waits", time.monotonic())
    dist.all_reduce(torch.zeros(1))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    task, ranks = globals()[sys.argv[1]], int(sys.argv[2])

    def say(*values: object) -> None:
        print(*values, flush=True)

    with guard():
        if "RANK" in os.environ:
            launch(task, ranks, backend="gloo", timeout_s=TIMEOUT_S, on_report=say)
        else:
            run_ranks(task, ranks, on_report=say)
