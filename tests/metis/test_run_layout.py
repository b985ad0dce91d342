"""Routes between stages of unlike layout: every value arrives once, from a rank that has it."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from metis.plan.plans import Stage
from metis.run.layout import data_ranks, messages, position, sample_range, tensor_ranks
from tests.metis.toy_plans import make_plan


@st.composite
def neighbours(draw):
    """Two stages of unlike dp and tp whose replicas share the same number of samples."""
    parts = [draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)) for _ in range(2)]
    short, long = sorted(parts, key=sum)
    short[draw(st.integers(0, len(short) - 1))] += sum(long) - sum(short)
    tps = [draw(st.sampled_from((1, 2, 4))) for _ in range(2)]
    stages, rank = [], 0
    for samples, tp in zip(parts, tps, strict=True):
        stages.append(
            Stage(
                first_rank=rank,
                device_types=("CPU",) * (len(samples) * tp),
                dp=len(samples),
                tp=tp,
                first_layer=0,
                end_layer=1,
                samples=tuple(samples),
            )
        )
        rank += len(samples) * tp
    return draw(st.permutations(stages))


def holder(stage, rank):
    """The (replica, slice) of a rank of the stage."""
    return divmod(rank - stage.first_rank, stage.tp)


@given(neighbours())
def test_every_receiver_gets_its_part_of_its_samples_once_from_a_rank_that_has_them(pair):
    source, target = pair
    arrived = Counter()
    for message in messages(source, target):
        samples = range(message.begin, message.end)
        assert (message.part, message.parts) == (holder(target, message.target)[1], target.tp)
        have = sample_range(source, holder(source, message.source)[0])
        assert samples
        assert have.start <= samples.start < samples.stop <= have.stop
        arrived.update((message.target, sample) for sample in samples)
    wanted = {
        (rank, sample)
        for replica in range(target.dp)
        for rank in tensor_ranks(target, replica)
        for sample in sample_range(target, replica)
    }
    assert arrived == Counter(dict.fromkeys(wanted, 1))


@given(neighbours())
def test_the_slices_of_a_sender_share_the_sending(pair):
    source, target = pair
    sent = Counter()
    for message in messages(source, target):
        replica, part = holder(source, message.source)
        sent[replica, part] += message.end - message.begin
    for replica in range(source.dp):
        loads = [sent[replica, part] for part in range(source.tp)]
        busy = [load for load in loads if load]
        assert len(busy) == min(source.tp, target.tp)
        assert len(set(busy)) == 1


def test_ranks_are_numbered_by_stage_then_replica_then_slice():
    plan = make_plan([(2, 1, 1, (3, 1)), (2, 2, 4, (2, 2))])
    assert [tuple(position(plan, rank)) for rank in range(6)] == [
        (0, 0, 0, 0),
        (1, 0, 1, 0),
        (2, 1, 0, 0),
        (3, 1, 0, 1),
        (4, 1, 1, 0),
        (5, 1, 1, 1),
    ]
    last = plan.stages[1]
    assert [tensor_ranks(last, 0), tensor_ranks(last, 1)] == [[2, 3], [4, 5]]
    assert [data_ranks(last, 0), data_ranks(last, 1)] == [[2, 4], [3, 5]]
    assert [list(sample_range(plan.stages[0], replica)) for replica in (0, 1)] == [[0, 1, 2], [3]]
