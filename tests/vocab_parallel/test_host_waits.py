"""No pass of an iteration reads a tensor on the host: on a GPU each such read would wait for it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.ranks import run_ranks
from tests.ordered.host_waits import HostWaits
from tests.vocab_parallel.rank_tasks import host_waits
from tests.vocab_parallel.test_run_equality import job
from vocab_parallel.plan.methods import METHODS

pytestmark = pytest.mark.timeout(400)

READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).all()),
    "a mask": lambda x: x[x > 0],
    "a mask that is written": lambda x: x.__setitem__(x > 0, 1.0),
    "nonzero": lambda x: x.nonzero(),
    "equal": lambda x: torch.equal(x, x),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_is_counted(read: str) -> None:
    with HostWaits() as mode:
        READS[read](torch.ones(3))
    assert sum(mode.found.values()) == 1, mode.found


def test_what_stays_on_the_device_is_not_counted() -> None:
    with HostWaits() as mode:
        x = torch.ones(3)
        x.where(x > 0, 0.0).index_select(0, torch.arange(2)).sum().add_(1)
        x[torch.tensor([0, 2])]
    assert not mode.found


def test_no_pass_of_any_method_reads_a_tensor_on_the_host() -> None:
    jobs = [job(method, 2, 5) for method in METHODS]
    jobs += [job(method, 2, 5, label_smoothing=0.1, block=4) for method in ("vocab-1", "vocab-2")]
    for found in run_ranks(host_waits, 2, jobs):
        assert found == [{}] * (2 * len(jobs))
