"""The solvers' turns: they wait while others work, go on, and are stopped with what they have."""

import time

import numpy as np
import pytest

import helix
from helix.inputs.cluster_source import ClusterSource, MachineGroup
from helix.inputs.experiment import ROOFLINE, Experiment, ProfileSource
from helix.inputs.model_source import ModelSource
from helix.inputs.search import SearchSettings
from helix.inputs.workload import WorkloadSettings
from helix.plan.answer import summary_of
from helix.plan.clock import Clock
from helix.plan.exact import MOST, Solvers
from helix.plan.question import ask
from helix.plan.solvers import solve
from helix.plan.solvers_result import Settings, Watch
from tests.helix.hard_problem import hard_problem


def on(machines: int, kind: str = "L4", time_limit_s: float = 60.0) -> Experiment:
    return Experiment(
        name="equal",
        model=ModelSource(config="Llama-3-8B"),
        cluster=ClusterSource(machines=(MachineGroup(kind=kind, count=machines),)),
        profile=ProfileSource(source=ROOFLINE),
        search=SearchSettings(time_limit_s=time_limit_s),
        workload=WorkloadSettings(duration_s=10, warm_up_s=5),
    )


def test_who_asks_in_a_pause_waits_until_it_ends_or_time_is_up():
    with Clock(0.2) as clock:
        clock.pause()
        assert clock.over()  # answered by the timer
    clock.pause()
    assert clock.over()
    with Clock(1e9) as clock:
        clock.pause()
        clock.go_on()
        assert not clock.over()
        clock.stop()
        assert clock.left() == 0.0


def test_a_solver_that_is_told_to_stop_keeps_what_it_has():
    asked = list[int]()

    def over() -> bool:
        asked.append(1)
        return len(asked) > 3

    matrices, start, value = hard_problem()
    solved = solve(matrices, Settings(max_run_time=60), start=start, over=over)
    assert solved.ended == "time"
    assert solved.seconds < 45
    assert solved.x is not None
    assert solved.bound > solved.objective >= value * (1 - 1e-9)


def test_the_wait_for_its_turn_is_none_in_which_a_solver_found_nothing_better():
    def slowly() -> bool:
        time.sleep(0.1)
        return False

    stop = Settings(upper_bound=100.0, threshold=0.5, early_stop_time=0.05)
    watch = Watch(stop, lambda: False, slowly)
    assert not watch.see(60.0, 100.0)
    assert not watch.see(60.0, 100.0)
    assert watch.seconds() >= 0.2


def test_both_solvers_answer_and_those_that_prove_their_answer_say_nothing_of_a_cut():
    question = ask(on(2))
    with Clock(60.0) as clock, Solvers(question, 0, clock) as solvers:
        solvers.begin(0.0)
        first, second = solvers.next(60.0), solvers.next(60.0)
        assert solvers.next(60.0) is None
    assert first
    assert first.made
    assert second
    assert second.made
    assert (first.method, second.method) == ("position", "milp")
    flows = [one.services[0].flow for one in (first.made, second.made)]
    assert flows == pytest.approx([question.bound()] * 2, rel=5e-3)
    assert first.made.facts["cut"] == second.made.facts["cut"] == ()


def test_on_many_machines_the_start_of_the_milp_stands_for_it_and_it_is_said():
    question = ask(on(MOST + 1))
    with Clock(1e-3) as clock, Solvers(question, 0, clock) as solvers:
        solvers.next(0.0)
        milp = solvers.next(60.0)
    assert milp
    assert f"not solved on more than {MOST} machines" in milp.said


def test_what_was_cut_short_stands_in_the_plan_with_what_it_may_have_missed():
    experiment = helix.load("my-cluster", "search.time_limit_s=1e-9", "search.partial=true")
    plan = helix.plan(experiment, method="milp")
    assert plan.flow > 0
    more = 100 * max(plan.bound / plan.flow - 1, 0.0)
    assert np.isfinite(more)
    assert plan.cut[0].startswith("milp: stopped after ")
    assert plan.cut[0].endswith(f"at most {more:.1f} % more flow")
    assert f"not done: {plan.cut[0]}" in summary_of(plan)
