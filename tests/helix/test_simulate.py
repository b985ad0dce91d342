"""The compiled simulator against its readable twin, and what every simulation keeps."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.trace import write_trace
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Node, both_ways
from helix.inputs.links import Links
from helix.inputs.model import known_models
from helix.inputs.profile import shipped_profiles
from helix.inputs.requests import Arrival, generated_arrivals
from helix.inputs.workload import Scheduler
from helix.plan.flow_graph import placement_flow
from helix.plan.placement import wired
from helix.plan.throughput import throughput
from helix.simulate.engine import Engine
from helix.simulate.simulate import simulate
from helix.simulate.switches import Switches, compat
from helix.simulate.system import System, make_system
from helix.simulate.trace import trace_events
from helix.simulate.workload import Offline, Online, Workload

LAYERS = 12
SCHEDULERS: tuple[Scheduler, ...] = ("maxflow", "swarm", "random", "shortest_queue")


@st.composite
def systems(draw: st.DrawFn) -> System:
    """Draw a small cluster that serves a shallow model, with partial inference."""
    kinds = draw(st.lists(st.sampled_from(["A100", "L4", "T4"]), min_size=3, max_size=7))
    ends = [(SOURCE, FIRST + i) for i in range(len(kinds))]
    ends += [(FIRST + i, SINK) for i in range(len(kinds))]
    ends += [(FIRST + i, FIRST + j) for j in range(len(kinds)) for i in range(j)]
    speeds = st.sampled_from([12.5e6, 100e6, 1e9])
    waits = st.sampled_from([0.001, 0.007, 0.05])
    links = both_ways([(a, b, draw(speeds), draw(waits)) for a, b in ends], len(kinds))
    cluster = Cluster(nodes=tuple(map(Node.of, kinds)), links=links)
    model = msgspec.structs.replace(known_models()["llama2_70b"], layers=LAYERS)
    profiles = shipped_profiles("llama2_70b")
    intervals = []
    for index, kind in enumerate(kinds):
        most = profiles[kind].max_layers
        start = draw(st.integers(0, LAYERS - 1)) if index > 2 else (0, 4, 8)[index]
        held = draw(st.integers(1, most)) if index > 2 else 4
        intervals.append((start, min(start + held, LAYERS)))
    placement = wired(LAYERS, intervals, cluster.links, partial=True)
    speed = throughput(model, profiles, cluster.kind_counts())
    flow = placement_flow(cluster, model, placement, speed)
    return make_system(cluster, model, profiles, placement, flow)


def check_twins(
    system: System, workload: Workload, scheduler: Scheduler, switches: Switches
) -> None:
    fast = simulate(system, workload, scheduler, switches=switches)
    slow = Engine(system, workload, scheduler, switches).run()
    assert fast.events == slow.events
    assert np.array_equal(fast.prompt_s, slow.prompt_s)
    assert np.array_equal(fast.decode_s, slow.decode_s)
    for name in ("rejected", "finished", "most_active", "kv_entries"):
        assert getattr(fast, name) == getattr(slow, name)
    assert fast.utilisation == pytest.approx(slow.utilisation, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    systems(), st.sampled_from(SCHEDULERS), st.integers(1, 30), st.booleans(), st.floats(0.05, 0.9)
)
def test_offline_the_compiled_simulator_is_the_readable_one(
    system: System, scheduler: Scheduler, initial: int, kept_faults: bool, feed: float
) -> None:
    workload = Offline(initial=initial, feed=feed, warm_up_s=1.0, duration_s=8.0)
    check_twins(system, workload, scheduler, compat() if kept_faults else Switches())


@settings(max_examples=20, deadline=None)
@given(systems(), st.sampled_from(SCHEDULERS), st.integers(0, 99))
def test_online_the_compiled_simulator_is_the_readable_one(
    system: System, scheduler: Scheduler, seed: int
) -> None:
    arrivals = generated_arrivals(600, 12, seed)
    short = [Arrival(a.time_s, a.input, 1 + a.output % 7) for a in arrivals]
    check_twins(system, Online(arrivals=short, duration_s=12.0), scheduler, Switches())


@settings(max_examples=15, deadline=None)
@given(systems(), st.sampled_from(SCHEDULERS), st.integers(0, 99))
def test_online_every_query_is_served_and_every_token_counted(
    system: System, scheduler: Scheduler, seed: int
) -> None:
    arrivals = generated_arrivals(400, 9, seed)
    short = [Arrival(a.time_s, a.input, 1 + a.output % 7) for a in arrivals]
    outcome = simulate(system, Online(arrivals=short, duration_s=1e6), scheduler)
    assert outcome.finished == len(outcome.prompt_s) == len(short)
    assert len(outcome.decode_s) == sum(arrival.output for arrival in short)
    assert outcome.rejected == 0
    assert all(0 <= part <= 1 for part in outcome.utilisation)
    least_s = system.latency[system.tail == SOURCE].min()
    assert not len(outcome.prompt_s) or outcome.prompt_s[0] > least_s


def chain() -> System:
    cluster = Cluster(
        nodes=tuple(map(Node.of, ["A100", "L4"])),
        links=both_ways([(SOURCE, 2, 1e9, 0.001), (2, 3, 1e9, 0.001), (3, SINK, 1e9, 0.001)], 2),
    )
    model = msgspec.structs.replace(known_models()["llama2_70b"], layers=10)
    profiles = shipped_profiles("llama2_70b")
    placement = wired(10, [(0, 5), (5, 10)], cluster.links)
    speed = throughput(model, profiles, cluster.kind_counts())
    flow = placement_flow(cluster, model, placement, speed)
    return make_system(cluster, model, profiles, placement, flow)


def test_one_query_alone_takes_the_sum_of_its_parts() -> None:
    system = chain()
    arrival = Arrival(0.0, 500, 1)
    outcome = simulate(system, Online(arrivals=[arrival], duration_s=100.0))
    hops = [500 * 2 / 1e9, 500 * 16386 / 1e9, 500 * 2 / 1e9]
    copies = 2 * 500 * 16384 * (1 / 4e9 + 1 / 5e9)
    layers = 5 * (system.prompt_s[0, 500] + system.prompt_s[1, 500])
    assert outcome.prompt_s[0] == pytest.approx(sum(hops) + 0.003 + copies + layers, rel=1e-9)


def test_a_hopeless_simulation_stops_early() -> None:
    workload = Offline(initial=4, warm_up_s=5.0, duration_s=60.0)
    whole = simulate(chain(), workload, check_s=10.0)
    wanted = whole.decode_tokens_per_s * 3
    short = simulate(chain(), workload, least_tokens_per_s=wanted, check_s=10.0)
    assert short.stopped_early
    assert not whole.stopped_early
    assert short.events < whole.events / 2


def test_a_system_without_a_way_in_is_refused_in_one_line() -> None:
    system = chain()
    cut = msgspec.structs.replace(system, tail=np.where(system.tail == SOURCE, 3, system.tail))
    with pytest.raises(InputError, match="no link leaves the coordinator"):
        simulate(cut, Offline(initial=1))
    dry = msgspec.structs.replace(system, flow=np.zeros(len(system.flow)))
    with pytest.raises(InputError, match="flow above 0"):
        simulate(dry, Offline(initial=1))


def test_too_many_layers_need_a_capacity() -> None:
    cluster = Cluster(nodes=(Node.of("L4"),), links=Links.of(()))
    model = msgspec.structs.replace(known_models()["llama2_70b"], layers=10)
    placement = wired(10, [(0, 10)], cluster.links)
    profiles = shipped_profiles("llama2_70b")
    with pytest.raises(InputError, match="holds 10 layers, its profile allows 7"):
        make_system(cluster, model, profiles, placement, None)
    system = make_system(cluster, model, profiles, placement, None, {0: 593600})
    assert system.kv_entries.tolist() == [0, 0, 593600]


def test_the_trace_names_rows_and_keeps_to_its_time(tmp_path) -> None:
    system = chain()
    engine = Engine(system, Offline(initial=2, warm_up_s=0.0, duration_s=3.0), "maxflow", compat())
    engine.run()
    begin = system.origin_s + 1.0
    events = trace_events(system, engine.spans, begin, begin + 0.5)
    names = [event["args"] for event in events if event["ph"] == "M"]
    assert {"name": "machine 0: layers 0-4"} in names
    spans = [event for event in events if event["ph"] == "X"]
    assert spans
    assert all(event["ts"] <= (begin + 0.5) * 1e6 for event in spans)
    write_trace(tmp_path / "trace.json", events)
    written = msgspec.json.decode((tmp_path / "trace.json").read_bytes())
    assert len(written["traceEvents"]) == len(events)
