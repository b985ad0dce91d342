"""The 1F1B timeline: order, dependencies, times against an independent oracle, exports."""

import json
from itertools import pairwise

import msgspec
import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metis.inputs.model import Model
from metis.plan.plans import Plan, Stage
from metis.simulate import compare, draw, one_forward_one_backward, play, write_trace

TIMES = st.floats(0.01, 100.0)


def make_plan(execution, sends=None, *, batches, finish=(0.0, 0.0), terms=None, cost=0.0):
    """A plan of one-rank, one-layer stages with the given times in ms."""
    sends = sends or [0.0] * len(execution)
    stages = tuple(
        Stage(
            first_rank=number,
            device_types=("A100",),
            dp=1,
            tp=1,
            first_layer=number,
            end_layer=number + 1,
            samples=(1,),
            execution_ms=time,
            send_ms=send,
            allreduce_ms=finish[0],
            update_ms=finish[1],
        )
        for number, (time, send) in enumerate(zip(execution, sends, strict=True))
    )
    return Plan(
        experiment="toy",
        method="optimal",
        mode="strict",
        model=Model(layers=max(3, len(stages)), global_batch=batches),
        node_sequence=("A100",),
        batches=batches,
        stages=stages,
        cost_ms=cost,
        cost_terms=terms or {},
    )


@st.composite
def plans(draw_from, sends=True):
    """Plans of 1-6 unlike stages and 1-10 micro-batches."""
    stages = draw_from(st.integers(1, 6))
    times = draw_from(st.lists(TIMES, min_size=stages, max_size=stages))
    link = st.floats(0.0, 50.0) if sends else st.just(0.0)
    links = draw_from(st.lists(link, min_size=stages, max_size=stages))
    return make_plan(times, links, batches=draw_from(st.integers(1, 10)), finish=(3.0, 2.0))


SHARES = st.floats(0.1, 0.9)


def longest_path(plan, share):
    """End of the last backward pass: the longest path through passes and transfers as a graph."""
    graph, last = nx.DiGraph(), len(plan.stages) - 1

    def edge(before, after):
        graph.add_edge((*before, "end"), (*after, "start"), weight=0.0)

    def node(key, duration):
        graph.add_edge((*key, "start"), (*key, "end"), weight=duration)

    for stage, facts in enumerate(plan.stages):
        order = one_forward_one_backward(stage, stages=last + 1, batches=plan.batches)
        for kind, batch in order:
            part = share if kind == "F" else 1 - share
            node((stage, kind, batch), part * facts.execution_ms)
        for before, after in pairwise(order):
            edge((stage, *before), (stage, *after))
    for batch in range(plan.batches):
        edge((last, "F", batch), (last, "B", batch))
        for stage in range(last):
            for kind, source, target in (("F", stage, stage + 1), ("B", stage + 1, stage)):
                link = (source, target, batch)
                node(link, plan.stages[stage].send_ms / 2)
                edge((source, kind, batch), link)
                edge(link, (target, kind, batch))
                if batch:
                    edge((source, target, batch - 1), link)
    return nx.dag_longest_path_length(graph)


def test_order_of_four_stages_and_five_batches_is_the_published_one():
    orders = [one_forward_one_backward(stage, stages=4, batches=5) for stage in range(4)]
    assert [" ".join(f"{kind}{batch}" for kind, batch in order) for order in orders] == [
        "F0 F1 F2 F3 B0 F4 B1 B2 B3 B4",
        "F0 F1 F2 B0 F3 B1 F4 B2 B3 B4",
        "F0 F1 B0 F2 B1 F3 B2 F4 B3 B4",
        "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4",
    ]


@given(st.integers(1, 8), st.integers(1, 20), st.data())
def test_order_holds_every_pass_once_and_bounds_activations(stages, batches, data):
    stage = data.draw(st.integers(0, stages - 1))
    order = one_forward_one_backward(stage, stages=stages, batches=batches)
    assert sorted(order) == [(kind, batch) for kind in "BF" for batch in range(batches)]
    held = 0
    for kind, batch in order:
        held += 1 if kind == "F" else -1
        assert 0 <= held <= min(stages - stage, batches)
        assert kind == "F" or order.index(("F", batch)) < order.index(("B", batch))


@settings(deadline=None)
@given(plans(), SHARES)
def test_pipeline_ends_when_the_longest_path_ends(plan, share):
    assert play(plan, share).pipeline_ms == pytest.approx(longest_path(plan, share), rel=1e-12)


@given(plans(), SHARES)
def test_stages_and_links_do_one_thing_at_a_time_and_nothing_before_its_input(plan, share):
    timeline = play(plan, share)
    by_stage = {}
    by_link = {}
    for item in timeline.passes:
        by_stage.setdefault(item.stage, []).append(item)
    for item in timeline.transfers:
        by_link.setdefault((item.source, item.target), []).append(item)
    for items in [*by_stage.values(), *by_link.values()]:
        for before, after in pairwise(items):
            assert before.end_ms <= after.start_ms
    start = {(item.stage, item.kind, item.batch): item.start_ms for item in timeline.passes}
    end = {(item.stage, item.kind, item.batch): item.end_ms for item in timeline.passes}
    for item in timeline.transfers:
        assert end[item.source, item.kind, item.batch] <= item.start_ms
        assert item.end_ms <= start[item.target, item.kind, item.batch]
    for (stage, kind, batch), time in start.items():
        source = stage - 1 if kind == "F" else stage + 1
        if (source, kind, batch) in end:
            assert time >= end[source, kind, batch]
        if kind == "B":
            assert time >= end[stage, "F", batch]


@given(plans(sends=False), SHARES)
def test_without_transfers_the_closed_form_bounds_the_pipeline_from_above(plan, share):
    times = [stage.execution_ms for stage in plan.stages]
    closed = (plan.batches - 1) * max(times) + sum(times)
    floor = max(sum(times[:stage]) + plan.batches * time for stage, time in enumerate(times))
    span = play(plan, share).pipeline_ms
    assert floor * (1 - 1e-12) <= span <= closed * (1 + 1e-12)


@given(st.integers(1, 8), st.integers(1, 20), TIMES, SHARES)
def test_equal_stages_fill_the_pipeline_exactly(stages, batches, time, share):
    timeline = play(make_plan([time] * stages, batches=batches), share)
    assert timeline.pipeline_ms == pytest.approx((batches - 1 + stages) * time)
    bubble = (stages - 1) / (batches - 1 + stages)
    assert timeline.bubbles == pytest.approx([bubble] * stages, abs=1e-12)


@given(plans(), SHARES)
def test_transfers_never_make_the_pipeline_faster(plan, share):
    silent = msgspec.structs.replace(
        plan,
        stages=tuple(msgspec.structs.replace(stage, send_ms=0.0) for stage in plan.stages),
    )
    assert play(plan, share).pipeline_ms >= play(silent, share).pipeline_ms * (1 - 1e-12)


def test_transfers_delay_the_receiver_and_leave_the_sender_free():
    # Two stages of 3 ms (F 1, B 2), each direction 2 ms: F0 0-1, sent 1-3, F0 3-4, B0 4-6,
    # sent 6-8, B0 8-10; stage 0 computes F1 at once, while its F0 is on the link.
    timeline = play(make_plan([3.0, 3.0], [4.0, 0.0], batches=2))
    stage0 = {(item.kind, item.batch): item.start_ms for item in timeline.passes if not item.stage}
    assert stage0 == {("F", 0): 0.0, ("F", 1): 1.0, ("B", 0): 8.0, ("B", 1): 11.0}
    assert [(item.start_ms, item.end_ms) for item in timeline.transfers] == [
        (1.0, 3.0),
        (3.0, 5.0),
        (6.0, 8.0),
        (9.0, 11.0),
    ]


def test_each_stage_reduces_and_updates_when_its_own_passes_are_done():
    timeline = play(make_plan([3.0, 3.0], batches=1, finish=(5.0, 7.0)))
    assert [(item.start_ms, item.reduced_ms, item.updated_ms) for item in timeline.finishes] == [
        (6.0, 11.0, 18.0),
        (4.0, 9.0, 16.0),
    ]
    assert timeline.iteration_ms == 18.0


@given(plans(), SHARES, st.floats(0, 1000))
def test_terms_add_up_to_both_totals(plan, share, cost):
    keys = ("pipeline", "fill", "sync", "update", "allreduce", "send", "batch_generator")
    terms = {key: float(number) for number, key in enumerate(keys)}
    plan = msgspec.structs.replace(plan, cost_ms=cost, cost_terms=terms)
    rows = compare(plan, share)
    timeline = play(plan, share)
    assert sum(row.closed_ms for row in rows) == pytest.approx(cost)
    assert sum(row.played_ms for row in rows) == pytest.approx(timeline.iteration_ms)
    difference = sum(row.difference_ms for row in rows)
    assert difference == pytest.approx(cost - timeline.iteration_ms, abs=1e-6)


def test_equal_stages_without_transfers_differ_from_the_closed_form_by_its_extra_terms_only():
    terms = {"pipeline": 6.0, "fill": 4.0, "sync": 30.0, "batch_generator": 8.0}
    plan = make_plan([2.0, 2.0], batches=4, terms=terms, cost=48.0)
    differences = {row.name: row.difference_ms for row in compare(plan)}
    extra = {"sync": 30.0, "batch_generator": 8.0}
    assert differences == pytest.approx({name: extra.get(name, 0.0) for name in differences})


def test_trace_has_every_span_in_microseconds_on_its_row(tmp_path):
    plan = make_plan([3.0, 6.0], [1.0, 0.0], batches=2, finish=(1.0, 1.0))
    timeline = play(plan)
    path = tmp_path / "deep" / "trace.json"
    write_trace(plan, timeline, path)
    trace = json.loads(path.read_text())["traceEvents"]
    spans = [event for event in trace if event["ph"] == "X"]
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in spans)
    passes = [event for event in spans if event["cat"] in ("forward", "backward")]
    assert {(event["tid"], event["name"]) for event in passes} == {
        (stage, f"{kind}{batch}") for stage in (0, 1) for kind in "FB" for batch in (0, 1)
    }
    assert max(event["ts"] + event["dur"] for event in spans) == pytest.approx(
        1000 * timeline.iteration_ms
    )
    rows = {(event["pid"], event["tid"]) for event in spans}
    named = {(event["pid"], event["tid"]) for event in trace if event["name"] == "thread_name"}
    assert rows == named


def test_figure_shows_every_pass_and_numbers_only_wide_bars():
    wide = draw(play(make_plan([3.0, 3.0], batches=2)), "toy")
    axes = wide.axes[0]
    assert sorted(text.get_text() for text in axes.texts) == sorted("00001111")
    assert axes.get_title() == "toy"
    bars = sum(len(group.get_paths()) for group in axes.collections)
    assert bars == 2 * 2 * 2 + 2 * 2
    assert not draw(play(make_plan([3.0, 3.0], batches=200))).axes[0].texts
