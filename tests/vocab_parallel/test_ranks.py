"""A rank that dies, fails or hangs ends the run soon, with one line that names it."""

import os
import signal
import time

import pytest

from vocab_parallel.run.ranks import run_ranks
from vocab_parallel.run.settings import RankError


def die(rank: int, report: object) -> None:
    import torch
    import torch.distributed as dist

    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.zeros(1))


def fail(rank: int, report: object) -> None:
    if rank == 2:
        raise ZeroDivisionError("of no use")
    time.sleep(600)


def hang(rank: int, report: object) -> None:
    import torch
    import torch.distributed as dist

    if rank == 0:
        time.sleep(600)
    dist.all_reduce(torch.zeros(1))


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("task", "ranks", "message"),
    [
        (die, 2, "rank 1 was killed by SIGKILL"),
        (fail, 3, "rank 2 failed: ZeroDivisionError: of no use"),
        (hang, 3, r"rank 0 hangs: rank [12] waited 4 s \(training.timeout_s\) in vain"),
    ],
)
def test_one_rank_ends_all(task: object, ranks: int, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(RankError, match=message) as error:
        run_ranks(task, ranks, timeout_s=4.0)  # type: ignore[arg-type]
    assert time.monotonic() - start < 200  # most of it a busy machine's start; no rank's sleep
    assert "\n" not in str(error.value)
