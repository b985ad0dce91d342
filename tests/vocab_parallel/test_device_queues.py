"""One queue of the device for all streams stalls every method; too few are refused at the start."""

import os

import pytest
import torch

from common.errors import InputError
from common.ranks import run_ranks
from tests.ordered.ranks import run_ordered
from tests.vocab_parallel.test_run_equality import job
from vocab_parallel.plan.methods import METHODS, make_schedule
from vocab_parallel.plan.passes import Schedule
from vocab_parallel.plan.queues import find_stall
from vocab_parallel.run.device_queues import VARIABLE, communicators, open_device_queues
from vocab_parallel.run.launch import launch
from vocab_parallel.run.links import Groups

pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("p", [2, 4, 8])
def test_with_one_queue_every_method_stalls(method: str, p: int) -> None:
    schedule = make_schedule(method, p, 8)
    assert find_stall(schedule, one_device_queue=True)
    assert not find_stall(schedule)


def count(rank: int, report: object, schedule: Schedule, replicas: int, tensor: int) -> int:
    """Return how many communicators this rank warms."""
    return Groups(schedule, replicas, 60.0, tensor).warm(torch.device("cpu"))


@pytest.mark.parametrize(
    ("method", "ranks", "replicas", "tensor"),
    [
        ("vocab-1", 1, 2, 1),
        ("vocab-1", 2, 1, 1),
        ("vocab-1", 3, 1, 1),
        ("vocab-1", 3, 1, 2),
        ("vocab-1", 2, 2, 1),
        ("interleaved", 2, 1, 1),
        ("interleaved", 4, 1, 1),
    ],
)
def test_communicators_are_as_many_as_are_warmed(
    method: str, ranks: int, replicas: int, tensor: int
) -> None:
    schedule = make_schedule(method, ranks, 2)
    found = run_ordered(run_ranks, count, ranks * replicas * tensor, schedule, replicas, tensor)
    assert max(found) == communicators(schedule, replicas, tensor)


def test_too_few_queues_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    one = job("vocab-2", 4, 4)
    with pytest.raises(InputError) as error:
        launch(one.plan, one.training, backend="nccl")
    assert str(error.value) == (
        "CUDA_DEVICE_MAX_CONNECTIONS is '1', but a rank has 8 streams, which in fewer queues would"
        " keep each other waiting, for ever if it is 1; unset it, or set it to 32"
    )


def test_queues_are_opened_where_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    open_device_queues(make_schedule("vocab-1", 8, 8), 2, 2)
    assert os.environ[VARIABLE] == "32"
