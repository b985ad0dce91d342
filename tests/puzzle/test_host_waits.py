"""Neither generation nor a pass reads a tensor on the host: on a GPU each read would wait."""

import pytest
import torch

from common.ranks import run_ranks
from puzzle.run.flag import Flag
from tests.puzzle.host_tasks import host_waits
from tests.puzzle.test_run_cuts import CUTS, VARIANTS, cuts_of, job

pytestmark = pytest.mark.timeout(400)


def test_a_flag_is_what_was_found():
    assert [Flag(torch.tensor(found)).read() for found in (False, True)] == [False, True]


@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut[1] * cut[2] * cut[3] == 2])
def test_nothing_is_read_on_the_host_while_work_is_queued(cut: tuple[int, int, int, int, str]):
    sampling = {"top_k": 40, "temperature": 0.9}
    ways = [way for way in ("as it is", "all terms", "grpo") if cut in cuts_of(way)]
    jobs = [job(cut, VARIANTS[way], "float32", sampling=sampling, steps=2) for way in ways]
    assert run_ranks(host_waits, 2, jobs, timeout_s=300.0) == [[{}] * len(jobs)] * 2
