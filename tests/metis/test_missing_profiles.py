"""Where the original meets a missing profile: it stops, drops the plan, or never looks."""

import msgspec
import pytest

from common.errors import InputError
from metis.inputs.cluster import Cluster, NodeGroup
from metis.inputs.model import Model
from metis.inputs.profile import Profiles
from metis.plan.problem import POLICIES, Policy, Problem
from metis.plan.search import Engine, search
from tests.metis.problems import COMPAT, make_profiles

both_engines = pytest.mark.parametrize("engine", ["compiled", "readable"])
both_policies = pytest.mark.parametrize("policy", POLICIES)


def compat(profiles: Profiles, memory_gb: float, *, max_tp: int = 2) -> Problem:
    """One device of type A and one of type B."""
    return Problem(
        model=Model(layers=4, hidden_size=256, heads=8, global_batch=4),
        cluster=Cluster(
            nodes=tuple(
                NodeGroup(
                    device=device,
                    devices=1,
                    memory_gb=memory_gb,
                    intra_bandwidth=50.0,
                    inter_bandwidth=10.0,
                )
                for device in ("A", "B")
            )
        ),
        profiles=profiles,
        node_types=("A", "B"),
        switches=COMPAT,
        max_tp=max_tp,
        max_batch_size=4,
        group_variance=1.0,
        max_permute_len=128,
    )


def gappy_profiles() -> Profiles:
    """Degree 2 is profiled for one sample only."""
    whole = make_profiles(4, {"A": 1.0, "B": 2.5}, uneven=False, max_tp=2)
    kept = {key: whole[key] for key in whole if (key.tp, key.bs) == (2, 1) or key.tp == 1}
    return Profiles(kept, "test profile")


@both_engines
@both_policies
def test_a_profile_that_no_walk_comes_to_may_be_missing(engine: Engine, policy: Policy) -> None:
    # Everything fits at once, so only a batch too small for two replicas moves to tp 2.
    roomy = search(compat(gappy_profiles(), 500.0), policy, engine=engine)
    assert len(roomy.plans.cost) > 0


@both_engines
@both_policies
def test_a_profile_that_a_walk_comes_to_ends_the_search(engine: Engine, policy: Policy) -> None:
    tight = compat(gappy_profiles(), 8.0)
    with pytest.raises(InputError, match=r"profile DeviceType\.[AB]_tp2_bs[24]\.json is missing"):
        search(tight, policy, engine=engine)


@both_engines
@both_policies
def test_a_limit_outweighs_a_missing_profile(engine: Engine, policy: Policy) -> None:
    search(compat(gappy_profiles(), 8.0, max_tp=1), policy, engine=engine)


@both_engines
@both_policies
def test_only_the_last_stage_needs_a_time_outside_layers(engine: Engine, policy: Policy) -> None:
    whole = make_profiles(4, {"A": 1.0, "B": 2.5}, uneven=False, max_tp=2)
    entries = {
        key: msgspec.structs.replace(whole[key], forward_backward_ms=sum(whole[key].layer_ms))
        if key.device == "B"
        else whole[key]
        for key in whole
    }
    result = search(compat(Profiles(entries, "test profile"), 500.0), policy, engine=engine)
    kept = {
        (result.layouts[i].node_sequence, len(result.layouts[i].groups))
        for i in result.plans.layout
    }
    # Mixed groups need both types' figure; of two stages, the last one's type counts. A phantom
    # is costed on its first stage.
    assert (("B", "A"), 2) in kept
    assert (("A", "B"), 2) not in kept
    assert result.uncostable > 0
