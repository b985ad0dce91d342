"""Under NCCL's rules plans of unlike stages run through, to the losses of one process."""

import pytest

from common.errors import InputError
from common.ranks import run_ranks
from tests.metis.test_run import FLOAT64, PLANS, plain_training, train_and_tell
from tests.metis.toy_plans import MODEL, make_plan
from tests.ordered.desk import Stall
from tests.ordered.ranks import run_ordered

pytestmark = pytest.mark.timeout(400)

STEPS = 2
MORE = {
    "four unlike stages": (
        [(1, 1, 1, (2,)), (2, 1, 1, (1, 1)), (1, 2, 2, (2,)), (1, 1, 1, (2,))],
        4,
    ),
    "dp3 then tp4": ([(3, 1, 2, (1, 2, 1)), (1, 4, 3, (4,))], 2),
    "tp4 then dp4": ([(1, 4, 3, (4,)), (4, 1, 2, (1, 1, 1, 1))], 2),
    "tp2 dp2 on both sides": ([(2, 2, 2, (3, 1)), (2, 2, 3, (1, 3))], 2),
}
USUAL = ("pp3, uneven layers, 8 micro-batches", "uneven dp2 both sides", "one, tp2, one")


@pytest.fixture(scope="module")
def expected():
    return plain_training(MODEL, FLOAT64, steps=STEPS)[0]


@pytest.mark.parametrize(
    ("name", "eager"),
    [
        pytest.param(name, eager, marks=() if eager and name in USUAL else pytest.mark.slow)
        for name in PLANS | MORE
        for eager in (True, False)
    ],
)
def test_unlike_stages_train_like_one_process(name, eager, expected):
    stages, batches = (PLANS | MORE)[name]
    plan = make_plan(stages, batches=batches)
    told = run_ordered(
        run_ranks, train_and_tell, plan.world_size, plan, FLOAT64, STEPS, eager=eager
    )
    for losses, *_ in told:
        assert losses == pytest.approx(expected, rel=1e-9, abs=0)


def train_with_one_group_for_both_ways(rank, report, plan, training, steps):
    """Train with gradients on the group of the activations of each boundary."""
    from metis.run import groups

    made = groups.Groups.__init__

    def shared(self, *arguments):
        made(self, *arguments)
        self.backward = self.forward

    groups.Groups.__init__ = shared
    return train_and_tell(rank, report, plan, training, steps)


def test_with_one_group_for_both_ways_of_a_boundary_a_run_stalls():
    plan = make_plan([(1, 1, 1, (1,)), (1, 1, 3, (1,)), (1, 1, 1, (1,))], batches=8)
    with pytest.raises(Stall, match=r"rank \d: send [FB]\d to \d, behind recv [FB]\d from \d"):
        run_ordered(
            run_ranks, train_with_one_group_for_both_ways, 3, plan, FLOAT64, 1, connects=False
        )


@pytest.mark.parametrize("idle", [0, 1])
def test_a_replica_without_a_sample_is_one_line(idle):
    samples = tuple(4 * (replica != idle) for replica in range(2))
    plan = make_plan([(2, 1, 2, samples), (1, 1, 3, (4,))])
    with pytest.raises(InputError) as error:
        run_ranks(train_and_tell, plan.world_size, plan, FLOAT64, 1, timeout_s=60)
    assert str(error.value) == (
        f"plan: stages[0]: replica {idle} has no sample of a micro-batch (samples"
        f" {list(samples)}); give each at least 1, or take dp 1 at most"
    )
