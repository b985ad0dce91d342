"""What every method answers where there is no plan, or no time, and what its plans hold."""

from math import isfinite
from pathlib import Path

import msgspec
import pytest

from metis import experiments as named
from metis.inputs.cluster import NodeGroup
from metis.inputs.experiment import ClusterSource, Experiment, Method
from metis.inputs.model import Model
from metis.plan.methods import Outcome, make_plan, make_problem
from metis.plan.plans import check


def question(*, devices: int = 6, memory_gb: float = 80.0, **search: object) -> Experiment:
    """One node of A100, 10 layers, the published profile."""
    base = named()["mixed-44"]
    node = NodeGroup(device="A100", devices=devices, memory_gb=memory_gb)
    settings = msgspec.structs.asdict(base.search) | {"time_limit_s": 60.0} | search
    return msgspec.structs.replace(
        base,
        name="own",
        model=Model(layers=10),
        cluster=ClusterSource(nodes=(node,)),
        search=type(base.search)(**settings),
    )


def answer(experiment: Experiment, method: Method, tmp_path: Path) -> Outcome:
    cluster = experiment.load_cluster()
    profiles = experiment.load_profiles(cluster, tmp_path)
    return make_plan(experiment, make_problem(experiment, cluster, profiles), method)


METHODS: tuple[Method, ...] = ("optimal", "wider", "metis", "stratified", "uniform")


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_trains_every_layer_and_the_whole_batch(method: Method, tmp_path: Path) -> None:
    found = answer(question(), method, tmp_path)
    assert found.plan is not None
    check(found.plan)


@pytest.mark.parametrize("method", METHODS)
def test_too_little_memory_is_said_and_nothing_infinite_is_reported(
    method: Method, tmp_path: Path
) -> None:
    found = answer(question(memory_gb=1.0), method, tmp_path)
    assert found.plan is None
    assert found.why_none.startswith("no plan fits: 10 layers")
    assert all(isfinite(figure.value) for figure in found.figures)


@pytest.mark.parametrize("method", ["optimal", "wider"])
def test_too_little_time_is_not_taken_for_too_little_memory(method: Method, tmp_path: Path) -> None:
    found = answer(question(time_limit_s=1e-9, bound_time_s=1e-9), method, tmp_path)
    assert found.plan is None
    assert "no plan was found within search.time_limit_s" in found.why_none


def test_a_wider_search_that_sees_a_part_of_the_space_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import metis.plan.methods as methods
    from metis.plan.wider import wider

    def cut(problem, **options):
        return wider(problem, **options)._replace(lower_bound_ms=0.0, finished=False)

    monkeypatch.setattr(methods, "wider", cut)
    found = answer(question(), "wider", tmp_path)
    assert found.plan is not None
    assert "nothing is proven" in found.plan.proof
    assert "plan.lower_bound" not in {figure.name for figure in found.figures}
