"""Time limits and Ctrl-C: compiled code keeps them, and what was found stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import helix
from common.errors import CaseError
from helix.inputs.workload import WorkloadSettings
from helix.plan.annealing import FOR_FLOW
from helix.plan.clock import Clock, heard
from helix.plan.question import ask
from helix.plan.search_chains import Chain, facts_of, run_chain
from helix.plan.search_problem import search_problem
from helix.simulate.judge import Simulations
from tests.helix.random_clusters import drawn

ROOT = Path(__file__).parents[2]
RAISED = np.ones(1, np.int64)


def test_a_chain_ends_where_the_flag_is_raised():
    question = ask(drawn(1, machines=(3, 4)))
    problem = search_problem(question.cluster, question.model, question.profiles, question.speed)
    runs = tuple((0, int(most)) for most in problem.most)
    chain = Chain(runs, FOR_FLOW, 10**9, (0,))
    ended = run_chain(problem, chain, loaded=False, partial=False, stop=RAISED)
    assert (ended.intervals, ended.evaluations) == (runs, 0)
    with Clock(0.2) as clock:  # else it would take hours
        ended = run_chain(problem, chain, loaded=False, partial=False, stop=clock.flag)
    assert 0 < ended.evaluations < 10**9


def test_a_simulation_that_is_cut_short_has_no_value():
    experiment = drawn(1, machines=(3, 4), workload=WorkloadSettings(duration_s=10, warm_up_s=5))
    question = ask(experiment)
    simulator = Simulations(experiment, question, 0)
    one = helix.plan(experiment, method="petals").services[0]
    assert np.isnan(simulator.offline(one, 0, RAISED))
    assert np.isnan(simulator.own((one,), 0, RAISED).rate)
    assert simulator.own((one,), 0).rate >= 0


def test_a_part_of_the_time_ends_with_the_whole_and_tells_it_of_ctrl_c():
    clock = Clock(1e9)
    part = clock.part(5.0)
    assert part.limit_s == 5.0
    assert clock.part(1e12).limit_s <= 1e9
    assert not part.over()
    clock.stop()
    assert part.over()
    assert clock.part(5.0).over()
    assert not clock.interrupted
    clock.part(1.0).part(1.0).interrupt()
    assert clock.interrupted
    assert part.interrupted


def test_ctrl_c_stops_the_clock_and_goes_on_as_usual():
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Clock(1e9) as clock, pytest.raises(KeyboardInterrupt), heard(clock):
            signal.raise_signal(signal.SIGINT)
        assert clock.interrupted
        assert clock.flag[0] == 1
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, ours)


def test_where_there_is_no_time_the_answer_is_one_of_the_methods_and_says_so():
    experiment = helix.load("my-cluster", "search.time_limit_s=1e-9")
    plan = helix.plan(experiment)
    assert plan.ended == "time limit"
    assert plan.simulated is None
    assert plan.flow > 0
    with pytest.raises(CaseError, match=r"in 0 evaluations; raise search\.time_limit_s"):
        helix.plan(experiment, method="search")


def test_a_machine_that_is_not_used_stays_so_and_counts_for_nothing():
    question = ask(drawn(1, machines=(3, 4)))
    problem = search_problem(question.cluster, question.model, question.profiles, question.speed)
    runs = tuple((0, int(most)) for most in problem.most)
    without = ((0, 0), *runs[1:])
    value, _ = facts_of(problem, without, False)
    part = question.cluster.part(range(1, len(runs)))
    alone = search_problem(part, question.model, question.profiles, question.speed)
    assert value == pytest.approx(facts_of(alone, runs[1:], False)[0], rel=0.2)
    chain = Chain(without, FOR_FLOW, 2_000, (0,))
    ended = run_chain(problem, chain, loaded=False, partial=False)
    for (first, end), most in zip(ended.intervals, problem.most, strict=True):
        assert (first, end) == (0, 0) or 0 <= first < end <= min(first + most, problem.layers)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_keeps_the_best_placement_so_far_as_a_plan(tmp_path: Path):
    command = [sys.executable, "-m", "helix", "plan", "my-cluster"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr
    told = ""
    while "place my-cluster: " not in told:  # some chains are done
        told += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the best placement so far is kept in" in said
    (path,) = (tmp_path / "results/helix/plans").glob("*.json")
    kept = helix.simulate(helix.load("my-cluster", "workload.duration_s=20"), path)
    assert kept.plan.ended == "interrupted"
