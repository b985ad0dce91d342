"""Helix's simulator beside its readable engine and simpy's bare events (`make bench`)."""

import json
from pathlib import Path

import pytest

from helix.simulate.engine import Engine
from helix.simulate.metrics import Outcome
from helix.simulate.simulate import simulate
from helix.simulate.switches import compat
from helix.simulate.workload import Offline
from tests.bench.yardstick import Table, Yardstick, bare_events, start_up, whole_process
from tests.helix.golden_runs import GOLDEN_RUNS, golden_system, scheduler, systems, workload

pytestmark = pytest.mark.timeout(600)
RUNS = (
    ("single.llama30b.offline.helix", 20),
    ("geo.llama70b.offline.swarm", 2.5),
    ("geo.llama70b.online.helix", 15),
    ("single.llama70b.online.helix", 20),
)


def test_an_event_beside_the_readable_engines(table: Table) -> None:
    """Measured: 540 to 790."""
    system = golden_system("single.llama70b.ilp")
    short, whole = Offline(initial=20, duration_s=1.0), Offline(initial=20)
    events = simulate(system, short, switches=compat()).events

    def readable() -> None:
        assert Engine(system, short, "maxflow", compat()).run().events == events

    table.compare(
        "helix: LLaMA-2 70B offline on 24 machines",
        lambda: simulate(system, whole, switches=compat()),
        Yardstick(f"readable engine, {events:,} events", readable, events),
        at_least=200,
        work=lambda outcome: {"events": outcome.events},
        exactly={"events": 13_029_117},
        per="events",
    )


@pytest.mark.parametrize(("run", "at_least"), RUNS)
def test_a_published_run_beside_simpys_bare_events(table: Table, run: str, at_least: float) -> None:
    """Measured: 46 to 56, 6.3 to 6.9, 38 to 42, 47 to 49."""
    made = systems(run)

    def parts() -> list[Outcome]:
        return [
            simulate(system, workload(run, part), scheduler(run), switches=compat())
            for part, system in enumerate(made)
        ]

    golden = [int(part["events"]) for part in GOLDEN_RUNS[run]["parts"]]
    outcomes = table.compare(
        f"helix: {run}",
        parts,
        bare_events(300_000),
        at_least=at_least,
        work=lambda outcomes: {"events": sum(outcome.events for outcome in outcomes)},
        exactly={"events": sum(golden)},
        per="events",
    )
    assert [outcome.events for outcome in outcomes] == golden


def test_a_whole_process_beside_a_bare_start(table: Table, tmp_path: Path) -> None:
    """Measured: 0.19 to 0.23; 200 MB."""
    name = "helix: simulate single-llama70b-helix-offline, whole process"
    asked = ["simulate", "single-llama70b-helix-offline", "--out", str(tmp_path)]
    table.compare(
        name,
        lambda: whole_process("-m", "helix", *asked),
        start_up("numba"),
        at_least=0.05,
        work=lambda _: {"simulation": 1},
        exactly={"simulation": 1},
    )
    record = json.loads((tmp_path / "helix/own.jsonl").read_text().splitlines()[-1])
    table.fact(f"{name}: peak memory", record["peak_rss"] / 1e6, 500, "MB")
