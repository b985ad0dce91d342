"""A running plan on a changed cluster: never slower than what is left of it, and what moves."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from common.errors import InputError
from metis.inputs.cluster import Cluster, NodeGroup
from metis.inputs.experiment import ClusterSource, Experiment, ProfileSource, SearchSettings
from metis.inputs.model import Model
from metis.plan.cells import Found
from metis.plan.change import change
from metis.plan.convert import to_plan
from metis.plan.methods import make_plan
from metis.plan.moves import Migration
from metis.plan.nearby import Staged, coarse, near
from metis.plan.plans import PlacedNode, Plan, Stage, check, placed
from metis.plan.repair import left_of, repaired
from metis.plan.replan import replan
from metis.plan.state import Bytes
from metis.plan.warm import warm_up
from tests.metis.pools import pool, problem_of

ROOT = Path(__file__).parents[2]
CLOSE = 1 + 1e-9
EACH = Bytes(2, 12)
MODEL = Model(layers=6, hidden_size=64, vocabulary=128, heads=4, global_batch=16)

NODES = (NodeGroup(device="A100", count=2, devices=4), NodeGroup(device="T4", count=2, devices=2))


def some_job(seed: int) -> tuple[Experiment, Plan]:
    """Draw a small pool and the plan that runs on it."""
    draw = random.Random(seed)
    nodes = tuple(
        NodeGroup(device=device, count=draw.randint(2, 3), devices=draw.choice([2, 4]))
        for device in draw.sample(["A100", "V100", "T4"], k=2)
    )
    asked = pool(
        *nodes, layers=draw.choice([12, 18]), batch=32, max_batch_size=8, time_limit_s=1.5, gap=0.05
    )
    plan = make_plan(asked, problem_of(asked), "optimal").plan
    assert plan is not None
    return asked, plan


def changed(asked: Experiment, lost: tuple[str, ...], came: tuple[NodeGroup, ...]) -> Experiment:
    nodes = (*asked.cluster.nodes, *came)
    return msgspec.structs.replace(asked, cluster=ClusterSource(nodes=nodes, lost=lost))


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_made_anew_is_never_slower_than_what_is_left_of_the_old_one(seed: int) -> None:
    asked, before = some_job(seed)
    draw = random.Random(seed)
    lost = (draw.choice(before.nodes).host,)
    came = (NodeGroup(device="A100", devices=4),) if seed % 2 else ()
    now = changed(asked, lost, came)
    cluster, problem = now.load_cluster(), problem_of(now)
    what = change(before, problem.model, problem.cluster.machines())
    start = repaired(problem, what)
    done = replan(now, problem, cluster, before)
    assert [node.host for node in done.change.gone] == list(lost)
    assert done.new is not None
    check(done.new.plan)
    assert lost[0] not in [node.host for node in done.new.plan.nodes]
    if start is not None:
        assert done.repaired is not None
        assert done.new.plan.cost_ms <= start.cost_ms * CLOSE
        assert done.repaired.plan.cost_ms == pytest.approx(start.cost_ms)
        assert near(problem, start, what.came) is not None
        sizes = tuple(stage.devices for stage in done.repaired.plan.stages)
        assert sizes == left_of(what).sizes


def test_without_a_change_the_plan_on_what_is_left_is_the_old_one_and_nothing_moves() -> None:
    asked, before = some_job(0)
    problem = problem_of(asked)
    what = change(before, problem.model, problem.cluster.machines())
    assert what.gone == []
    start = repaired(problem, what)
    assert start is not None
    assert start.cost_ms <= before.cost_ms * 1.05  # its split has the least slowest stage
    left = to_plan(
        start.plan, experiment="x", method="optimal", mode="strict", machines=start.machines
    )
    shapes = [(s.devices, s.tp) for s in before.stages]
    assert [(s.devices, s.tp) for s in left.stages] == shapes


def test_the_repaired_plan_keeps_every_stages_devices_that_are_left() -> None:
    nodes = [PlacedNode(host=f"node0-{n}", device="A100", devices=4) for n in range(3)]
    before = Plan(
        experiment="x", method="optimal", mode="strict", model=Model(layers=12, global_batch=16),
        node_sequence=("A100",), batches=4, nodes=tuple(nodes), cost_ms=1.0,
        stages=(
            Stage(first_rank=0, device_types=("A100",) * 6, dp=3, tp=2, first_layer=0, end_layer=6,
                  samples=(2, 1, 1)),
            Stage(first_rank=6, device_types=("A100",) * 6, dp=3, tp=2, first_layer=6, end_layer=12,
                  samples=(2, 1, 1)),
        ),
    )  # fmt: skip
    machines = Cluster(nodes=(NodeGroup(device="A100", count=3, devices=4),)).without(("node0-0",))
    left = left_of(change(before, before.model, machines.machines()))
    assert left == ((0, 1), (2, 6), (2, 2))


# --- as a user calls it --------------------------------------------------------------------------


def metis(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    command = [sys.executable, "-m", "metis", *words]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=110, check=False
    )


FIELDS = [
    "--set",
    "name=mine",
    "--set",
    "search.time_limit_s=2",
    "--set",
    "cluster.nodes.0.count=2",
]
PLAN = "results/metis/plans/mine.optimal.json"


def test_a_lost_node_is_answered_with_a_plan_and_what_moves(tmp_path: Path) -> None:
    first = metis("plan", "my-llama", *FIELDS, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    before = json.loads((tmp_path / PLAN).read_text())
    words = ("plan", "my-llama", *FIELDS, "--set", 'cluster.lost=["node0-1"]', "--replan", PLAN)
    done = metis(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Gone: 1 of 8 x A100 (node0-1)." in done.stdout
    assert "What moves, by node" in done.stdout
    after = json.loads((tmp_path / PLAN).read_text())
    assert "node0-1" not in [node["host"] for node in after["nodes"]]
    assert json.loads((tmp_path / PLAN.replace(".json", ".before.json")).read_text()) == before
    moves = json.loads((tmp_path / PLAN.replace(".json", ".moves.json")).read_text())
    received = Counter[str]()
    for move in moves["between"]:
        received[move["to"]] += move["bytes"]
    assert set(received) <= {"node0-0", "node1-0"}
    record = json.loads((tmp_path / "results/metis/own.jsonl").read_text().splitlines()[-1])
    told = {metric["name"]: metric["value"] for metric in record["metrics"]}
    assert told["plan.moved"] == pytest.approx(sum(received.values()), rel=1e-6)
    assert told["plan.cost_before"] == before["cost_ms"]
    again = metis("simulate", "my-llama", *FIELDS, "--plan", PLAN, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_what_cannot_be_planned_anew_is_refused_in_one_sentence() -> None:
    asked, before = some_job(1)
    problem, cluster = problem_of(asked), asked.load_cluster()
    wider = msgspec.structs.replace(asked, search=SearchSettings(method="wider"))
    with pytest.raises(InputError, match=r"--replan needs search\.method optimal"):
        replan(wider, problem, cluster, before)
    with pytest.raises(InputError, match="does not say on which nodes it runs"):
        replan(asked, problem, cluster, msgspec.structs.replace(before, nodes=()))
    other = msgspec.structs.replace(before, model=Model(layers=99))
    with pytest.raises(InputError, match=r"the plan is for model.layers 99, the experiment has"):
        replan(asked, problem, cluster, other)


def test_a_plan_whose_nodes_are_too_few_is_no_plan() -> None:
    _, before = some_job(1)
    with pytest.raises(InputError, match="its nodes have"):
        check(msgspec.structs.replace(before, nodes=before.nodes[:-1]))


# --- 512 devices, by the clock of the processor ---------------------------------------------------


def job_512(seed: int) -> Experiment:
    """Draw 512 devices of two or three types in nodes of 8, and a large model."""
    draw = random.Random(seed)
    names = ["H200", "H100", "A100", "A100-40GB", "L40S", "V100-32GB"]
    devices = draw.sample(names, k=draw.choice([2, 3]))
    counts = {2: [(32, 32), (48, 16)], 3: [(32, 16, 16), (40, 16, 8)]}[len(devices)]
    nodes = tuple(
        NodeGroup(device=d, count=c, devices=8, inter_bandwidth=draw.choice([10.0, 25.0, 50.0]))
        for d, c in zip(devices, draw.choice(counts), strict=True)
    )
    config = draw.choice(["Llama-3-8B", "Llama-3-70B", "Qwen3-32B"])
    return Experiment(
        name="job",
        model=Model(config=config, sequence_length=4096, global_batch=draw.choice([512, 1024])),
        cluster=ClusterSource(nodes=nodes),
        profile=ProfileSource(max_tp=8),
    )


def searched(search: Staged, cpu_s: float) -> Found:
    """Return the best plan after so many seconds of the processor."""
    started = time.process_time()
    thread = threading.Thread(target=search.run)
    thread.start()
    while thread.is_alive() and time.process_time() - started < cpu_s:
        thread.join(0.02)
    search.stop()
    thread.join()
    found = search.best().found
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
def test_512_devices_are_planned_anew_in_two_seconds(seed: int) -> None:
    asked = job_512(seed)
    problem = problem_of(asked)
    warm_up("optimal", strict=True)
    first = searched(Staged(problem, coarse(problem), gap=0.0, limit_s=1e9), 10.0)
    runs = to_plan(
        first.plan, experiment="x", method="optimal", mode="strict", machines=first.machines
    )
    before = placed(runs, asked.load_cluster())
    lost = tuple(random.Random(seed).sample([node.host for node in before.nodes], k=2))
    now = changed(asked, lost, ())
    problem, started = problem_of(now), time.process_time()
    what = change(before, problem.model, problem.cluster.machines())
    start = repaired(problem, what)
    place = near(problem, start, what.came) if start else coarse(problem)
    left_s = 1.8 - (time.process_time() - started)
    soon = searched(Staged(problem, place, start=start, gap=0.0, limit_s=1e9), left_s)
    plan = to_plan(
        soon.plan, experiment="x", method="optimal", mode="strict", machines=soon.machines
    )
    migration = Migration(what, plan, now.load_cluster(), EACH)
    assert migration.moves(migration.cheapest().machines).total > 0
    assert time.process_time() - started < 2.5  # the search looks at the clock between its steps
    assert start is None or soon.cost_ms <= start.cost_ms * CLOSE
    check(placed(plan, now.load_cluster()))
