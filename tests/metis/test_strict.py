"""The default search: never worse than any part of the pool or any method, and by how much."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

import metis
from common.case import to_toml
from common.errors import InputError
from metis.inputs.cluster import Cluster, NodeGroup
from metis.plan.answer import write_launch
from metis.plan.anytime import Search
from metis.plan.homogeneous import best_uniform
from metis.plan.methods import make_plan
from metis.plan.optimal import optimal
from metis.plan.plans import check
from metis.plan.problem import Problem
from metis.plan.strict import space
from metis.plan.wider import wider
from tests.metis.brute import brute_force
from tests.metis.pools import A10G, FASTER, H100, pool, problem_of, tiny_pool

ROOT = Path(__file__).parents[2]
CLOSE = 1 + 1e-9


def best_of(problem: Problem) -> float | None:
    search = Search(problem)
    search.run()
    found = search.best()
    assert found.finished
    assert found.found is None or found.lower_bound_ms >= found.found.cost_ms / CLOSE
    return found.found and found.found.cost_ms


def assert_equals_brute_force(seed: int) -> None:
    problem = tiny_pool(seed)
    ours, theirs = best_of(problem), brute_force(problem)
    assert (ours is None) == (theirs is None), seed
    if ours is not None:
        assert ours == pytest.approx(theirs, rel=1e-9), seed


@pytest.mark.parametrize("seed", range(40))
def test_the_best_plan_is_that_of_brute_force_over_all_subsets(seed: int) -> None:
    assert_equals_brute_force(seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_best_plan_is_that_of_brute_force_on_500_pools() -> None:
    for seed in range(1000, 1500):
        assert_equals_brute_force(seed)


@pytest.mark.parametrize("seed", range(8))
def test_a_search_that_is_stopped_bounds_the_best_plan(seed: int) -> None:
    problem = tiny_pool(seed)
    best = best_of(problem)
    for wait_s in (0.0, 0.002, 0.01):
        search = Search(problem)
        thread = threading.Thread(target=search.run)
        thread.start()
        time.sleep(wait_s)
        search.stop()
        thread.join()
        cut = search.best()
        if best is not None:
            assert cut.lower_bound_ms <= best * CLOSE
            assert cut.found is None or cut.found.cost_ms >= best / CLOSE


def others(problem: Problem) -> dict[str, float]:
    """What every other method finds on the whole pool, and some on parts of it."""
    found = {
        "walks": optimal(problem, time_limit_s=10).plan,
        "wider": wider(problem, time_limit_s=10).plan,
    }
    for device in problem.node_types:
        nodes = tuple(n for n in problem.cluster.nodes if n.device == device)
        alone = msgspec.structs.replace(problem, cluster=Cluster(nodes=nodes), node_types=(device,))
        found[f"uniform {device}"] = best_uniform(alone)
        found[f"wider {device}"] = wider(alone, time_limit_s=10).plan
    return {name: plan.cost_ms for name, plan in found.items() if plan}


def some_pool(seed: int) -> Problem:
    """Draw up to 5 groups of nodes of the published profile's devices."""
    draw = random.Random(seed)
    nodes = tuple(
        NodeGroup(
            device=draw.choice(["A100", "V100", "T4"]),
            count=draw.choice([1, 1, 2]),
            devices=draw.choice([2, 4, 8]),
            inter_bandwidth=draw.choice([0.1, 1.25, 10.0]),
        )
        for _ in range(draw.choice([2, 3]))
    )
    layers, batch = draw.choice([12, 18, 26]), draw.choice([32, 48, 64])
    return problem_of(pool(*nodes, layers=layers, batch=batch))


def assert_never_worse(problem: Problem) -> None:
    ours = best_of(problem)
    for name, cost in others(problem).items():
        assert ours is not None
        assert ours <= cost * CLOSE, name


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 2))]
)
def test_no_other_method_is_better_on_a_pool_of_unlike_nodes(seed: int) -> None:
    assert_never_worse(some_pool(seed))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_other_method_is_better_on_more_pools() -> None:
    for seed in range(100, 106):
        assert_never_worse(some_pool(seed))


A100 = NodeGroup(device="A100", devices=8)


@pytest.mark.parametrize(
    ("nodes", "changes", "most_ms"),
    [
        ((H100, A10G), {"layers": 28, "batch": 128, "max_batch_size": 32, "scale": FASTER}, 1719.4),
        ((NodeGroup(device="A100", devices=7),), {"batch": 48}, 6629.1),
        ((A100,), {}, 7129.0),
        ((A100, NodeGroup(device="T4", devices=2, inter_bandwidth=1.25)), {}, 7129.0),
        ((A100, NodeGroup(device="A100", devices=2, inter_bandwidth=0.1)), {}, 7129.0),
    ],
    ids=["H100 and A10G", "7 A100", "8 A100", "and two T4", "and two far ones"],
)
def test_adding_devices_never_hurts(
    nodes: tuple[NodeGroup, ...], changes: dict, most_ms: float
) -> None:
    asked = pool(*nodes, **changes)
    found = make_plan(asked, problem_of(asked), "optimal").plan
    assert found is not None
    check(found)
    assert found.cost_ms <= most_ms
    assert found.lower_bound_ms is not None
    assert found.lower_bound_ms <= found.cost_ms
    assert "proven best of all plans with any of the nodes" in found.proof


BIG = {"batch": 1024, "layers": 42, "max_tp": 8, "max_batch_size": 32}


def devices(device: str, count: int) -> NodeGroup:
    return NodeGroup(device=device, count=count, devices=8)


@pytest.mark.parametrize(
    "nodes",
    [
        (devices("A100", 4), devices("V100", 2), devices("T4", 2)),
        (devices("A100", 8), devices("V100", 16)),
    ],
    ids=["64 of 3 types", "64 A100 and 128 V100"],
)
def test_a_large_pool_has_a_plan_soon_and_a_bound_below_it(nodes: tuple[NodeGroup, ...]) -> None:
    asked = pool(*nodes, **BIG, gap=0.5)
    found = make_plan(asked, problem_of(asked), "optimal").plan
    assert found is not None
    check(found)
    assert found.lower_bound_ms is not None
    assert 0 < found.lower_bound_ms <= found.cost_ms


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_98_layers_on_128_a100_are_planned_as_well_as_by_the_wider_search() -> None:
    asked = pool(
        devices("A100", 16), layers=98, batch=512, max_tp=8, max_batch_size=32, time_limit_s=60.0
    )
    found = make_plan(asked, problem_of(asked), "optimal").plan
    assert found is not None
    assert found.cost_ms <= 16452.0


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (
            (devices("A100", 4),),
            "kinds of nodes in any order, contiguous device groups of any size",
        ),
        ((devices("A100", 5),), "device groups inside a node or of whole nodes, any profiled"),
        ((devices("A100", 9), devices("T4", 1)), "whole nodes (of a kind with over 8, 2^k or all"),
        ((devices("A100", 65),), "or of 2^k, 3 x 2^k or all whole nodes of a kind, any profiled"),
        (
            tuple(devices(d, 1) for d in ("A100", "T4", "V100", "P100", "L4")),
            "device types in any order",
        ),
    ],
)
def test_the_space_of_the_bound_is_named_as_it_is_searched(
    nodes: tuple[NodeGroup, ...], said: str
) -> None:
    figures = {"memory_gb": 24.0, "intra_bandwidth": 16.0}
    nodes = tuple(msgspec.structs.replace(group, **figures) for group in nodes)
    scale = {group.device: 1.0 for group in nodes}
    assert said in space(problem_of(pool(*nodes, layers=10, scale=scale)))


def test_nodes_that_do_not_help_stay_idle_and_are_not_launched(tmp_path: Path) -> None:
    far = NodeGroup(device="T4", devices=4, inter_bandwidth=0.01, host="far")
    asked = pool(far, NodeGroup(device="A100", devices=4, host="near"), layers=10, batch=16)
    plan = metis.plan(asked, out=tmp_path)
    assert plan.machines == (1,)
    assert plan.world_size == 4
    scripts = [path.name for path in write_launch(asked, plan, tmp_path / "launch").glob("*.sh")]
    assert scripts == ["node0-near.sh"]
    smaller = pool(NodeGroup(device="A100", devices=4), layers=10, batch=16)
    with pytest.raises(InputError, match=r"uses machine 1 .*, but the cluster has 1"):
        write_launch(smaller, plan, tmp_path / "other")


@pytest.mark.timeout(240)
def test_ctrl_c_prints_the_best_plan_so_far_and_exits_130(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    asked = pool(
        devices("A100", 16), devices("V100", 16), devices("T4", 16), **BIG, time_limit_s=20
    )

    (tmp_path / "big.toml").write_text(to_toml(asked))
    process = subprocess.Popen(
        [sys.executable, "-m", "metis", "plan", "big.toml"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs deaf to Ctrl-C; the one under test must hear it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "search pool, seconds: 2 of 20" in line:
            break
    process.send_signal(signal.SIGINT)
    pressed = time.monotonic()
    shown, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert time.monotonic() - pressed < 10
    path = tmp_path / "results/metis/plans/pool.optimal.interrupted.json"
    plan = msgspec.json.decode(path.read_bytes())
    # Two seconds of a busy machine may be too few for a bound; then that is said.
    bounded = plan["lower_bound_ms"] > 0
    assert ("above the best" if bounded else "nothing is proven yet") in shown
    assert plan["lower_bound_ms"] <= plan["cost_ms"]
    assert plan["question"] == ""
