"""Vocabulary Parallelism's planning and layers beside simpy, networkx and torch (`make bench`)."""

import importlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from torch.nn import functional

from tests.bench.yardstick import Table, Yardstick, bare_events, start_up, whole_process
from vocab_parallel.plan.check import find_faults
from vocab_parallel.plan.dependencies import EVERY, needs
from vocab_parallel.plan.methods import METHODS, make_schedule
from vocab_parallel.plan.passes import Pass, Schedule
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.run.output import Algorithm, Rules, Shard, combine, s_pass, shard_labels, t_pass
from vocab_parallel.simulate.predict import predict

pytestmark = pytest.mark.timeout(600)
paper: Any = importlib.import_module("vocab_parallel.paper.experiments")


def passes(schedule: Schedule) -> int:
    return sum(map(len, schedule.programs))


def test_forty_rows_simulated_beside_simpys_bare_events(table: Table) -> None:
    """Plans and predictions of the paper's 40 rows. Measured: 0.18 to 0.22."""
    names = [f"paper-{s}-{paper.short(v)}" for s in paper.SEQUENCES for v in paper.VOCABULARIES]
    cases = [(paper.named()[name], method) for name in names for method in paper.FIVE]
    assert len(cases) == 40

    def rows() -> int:
        plans = [make_plan(experiment, method) for experiment, method in cases]
        assert all(0 < predict(plan).mfu < 1 for plan in plans)
        return sum(passes(plan.schedule) for plan in plans)

    table.compare(
        "vocab: 40 rows planned and simulated",
        rows,
        bare_events(200_000),
        at_least=0.08,
        work=lambda count: {"passes": count},
        exactly={"passes": 180_224},
        per="passes",
    )


@pytest.mark.parametrize(
    ("method", "count", "at_least"),
    [
        ("baseline", 32_768, 0.3),
        ("redis", 32_768, 0.3),
        ("interlaced", 98_304, 0.1),
        ("vocab-1", 98_304, 0.12),
        ("vocab-2", 98_304, 0.12),
        ("naive", 114_688, 0.14),
        ("v-half", 98_304, 0.1),
        ("v-half-vocab-1", 163_840, 0.018),
        ("v-half-vocab-2", 163_840, 0.018),
    ],
)
def test_a_schedule_beside_copying_it(
    table: Table, method: str, count: int, at_least: float
) -> None:
    """Measured: 0.69 to 0.88, 0.24 to 0.69 with vocabulary passes, 0.04 to 0.08 in V-Half."""
    made = make_schedule(method, 32, 512)

    def copied() -> list[list[Pass]]:
        return [[Pass(i.kind, i.batch, i.chunk) for i in program] for program in made.programs]

    schedule = table.compare(
        f"vocab: schedule of {method}, 32 ranks, 512 micro-batches",
        lambda: make_schedule(method, 32, 512),
        Yardstick("its passes copied", copied),
        at_least=at_least,
        work=lambda one: {"passes": passes(one)},
        exactly={"passes": count},
    )
    assert list(map(list, schedule.programs)) == copied()


def as_graph(schedule: Schedule) -> nx.DiGraph:
    """Return what waits for what; what must meet on every rank is one vertex between."""
    graph = nx.DiGraph()
    for rank, program in enumerate(schedule.programs):
        graph.add_edges_from(((rank, before), (rank, item)) for before, item in pairwise(program))
        for item in program:
            graph.add_edge((rank, item), (EVERY, item))
            for need in needs(schedule, rank, item):
                graph.add_edge((need.rank, need.item), (rank, item))
    return graph


def test_the_checker_beside_networkxs_search_for_a_circle(table: Table) -> None:
    """Measured: 0.16 to 0.21."""
    schedule = make_schedule("vocab-2", 8, 128)
    graph = as_graph(schedule)
    assert nx.is_directed_acyclic_graph(graph)
    faults = table.compare(
        "vocab: checker, 8 ranks, 128 micro-batches",
        lambda: find_faults(schedule),
        Yardstick(
            f"networkx: no circle among {graph.number_of_edges():,} edges",
            lambda: nx.is_directed_acyclic_graph(graph),
        ),
        at_least=0.07,
        work=lambda _: {"passes": passes(schedule)},
        exactly={"passes": 6144},
    )
    assert faults == ()


@pytest.mark.parametrize(
    ("algorithm", "at_least"), [("vocab-1", 0.4), ("vocab-2", 0.4), ("vocab-2-published", 0.4)]
)
def test_s_and_t_beside_torchs_cross_entropy_of_the_same_flop(
    table: Table, algorithm: Algorithm, at_least: float
) -> None:
    """Three products of 512 x 256 x 4000 on one thread, both ways. Measured: 0.89 to 1.03."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, weight, labels = torch.randn(512, 256), torch.randn(4000, 256), torch.arange(512)
    shard, rules = Shard(weight, 0, 4000, 4000), Rules(algorithm)
    mine = shard_labels(labels, torch.ones(512), shard)
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()

    def ours() -> torch.Tensor:
        passed = s_pass(x, shard, mine, rules)
        found = combine(passed.local[None], 0, shard, mine, rules)
        return t_pass(x, passed, found, shard, mine, rules)[0]

    def torchs() -> torch.Tensor:
        for leaf in leaves:
            leaf.grad = None
        functional.cross_entropy(leaves[0] @ leaves[1].T, labels, reduction="sum").backward()
        assert leaves[1].grad is not None
        return leaves[1].grad

    gradient = table.compare(
        f"vocab: S and T of {algorithm}, 512 tokens, hidden 256, 4000 rows",
        ours,
        Yardstick("torch: product, cross_entropy, backward", torchs),
        at_least=at_least,
        work=lambda _: {"FLOP": 3 * 2 * x.shape[0] * weight.numel()},
        exactly={"FLOP": 3_145_728_000},
    )
    torch.testing.assert_close(gradient, torchs(), rtol=1e-4, atol=1e-4)


def test_a_whole_process_beside_a_bare_start(table: Table, tmp_path: Path) -> None:
    """All methods planned and simulated to choose one. Measured: 0.13 to 0.2."""
    asked = ["plan", "seed-4096-256k", "--out", str(tmp_path)]
    table.compare(
        "vocab: plan by all methods, whole process",
        lambda: whole_process("-m", "vocab_parallel", *asked),
        start_up("numpy", "rich", "typer"),
        at_least=0.11,
        work=lambda _: {"methods": len(METHODS)},
        exactly={"methods": 18},
    )
