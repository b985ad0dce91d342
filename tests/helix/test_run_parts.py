"""The service's parts by themselves: queues, wires, lanes, replanning, profile, trace."""

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from common.errors import InputError
from helix.inputs.cluster import FIRST
from helix.inputs.experiment import HERE, KindSource, ProfileSource, WorkloadSettings
from helix.inputs.profile import Curve, Limits, read_profiles
from helix.plan.question import ask
from helix.run.deploy import Deployment
from helix.run.drive import drive
from helix.run.engine import BatchSpan
from helix.run.measure import measure
from helix.run.messages import HEAD, Answer, Free, Hello, Key, Mark, Message, Pass, Sampling, Stop
from helix.run.pace import Clock, Pace
from helix.run.queues import LayerQueues
from helix.run.replan import without
from helix.run.request import Ask, Running
from helix.run.tokens import tokenizer_of
from helix.run.trace import trace_events
from helix.run.wire import Link, Listener, framed
from helix.simulate.node import Node
from helix.simulate.schedulers import Query
from helix.simulate.service import system_of
from helix.simulate.switches import Switches
from tests.helix.local_fleet import experiment, local, plan

TWO = ((0, 3), (3, 6), (0, 3), (3, 6))


class Waiting(msgspec.Struct, eq=False):
    key: Key
    layers: range
    begin: int
    count: int
    prompt: bool


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 900), st.booleans()), min_size=1, max_size=40
    ),
    st.data(),
)
@settings(deadline=None, max_examples=50)
def test_batches_are_those_of_the_simulated_machine(arrivals, data):
    asked = experiment(machines=1)
    made = plan(asked, ((0, 6),))
    question = ask(asked)
    system = system_of(made.services[0], question.cluster, question.model, question.profiles)
    node = Node(system, FIRST, Switches())
    limits = Limits(
        kv_entries=0,
        prompt_requests=int(system.prompt_requests[FIRST]),
        decode_requests=int(system.decode_requests[FIRST]),
    )
    queues, numbers = LayerQueues[Waiting](0, 6, limits), iter(range(1000))
    left = list(arrivals)
    while left or queues:
        for entry, tokens, prompt in left[: data.draw(st.integers(0, 5))] or left[:1]:
            number = next(numbers)
            query = Query(number, tokens, 5)
            query.done = 0 if prompt else 1
            node.receive(query, entry)
            begin, count = (0, tokens) if prompt else (tokens, 1)
            queues.put(Waiting(Key(number, 0), range(entry, 6), begin, count, prompt))
            left.pop(0)
        batch = node.start()
        layer, items = queues.take()
        assert batch is not None
        assert batch.layer == layer
        assert {query.number for query in node.batch} == {item.key.request for item in items}
        assert [item.prompt for item in items] == sorted((i.prompt for i in items), reverse=True)
        gone = {query.number for query in node.finish()}
        assert {item.key.request for item in queues.finish(layer, items)} == gone


def test_what_fits_no_batch_is_one_by_itself():
    limits = Limits(kv_entries=0, prompt_requests=1, decode_requests=1)
    queues = LayerQueues[Waiting](0, 1, limits)
    long = Waiting(Key(0, 0), range(1), 0, 5000, prompt=True)
    late = Waiting(Key(1, 0), range(1), 3000, 1, prompt=False)
    for item in (late, long):
        queues.put(item)
    assert queues.take() == (0, [late])
    assert queues.take() == (0, [long])
    assert queues.take() == (0, [])


def test_a_played_machine_takes_the_profiles_time():
    pace = Pace(Curve((0, 100), (0.0, 0.1)), Curve((0, 2, 4), (0.0, 0.02, 0.04)))
    assert pace.seconds(50, 0) == pytest.approx(0.05)
    assert pace.seconds(50, 3) == pytest.approx(0.08)
    assert pace.seconds(0, 1) == pytest.approx(0.02)
    assert pace.seconds(200, 8) == pytest.approx(0.2 + 0.08)
    clock, begin = Clock(pace), time.monotonic()
    for _ in range(3):
        clock.begin()
        clock.end(50, 0)
    assert time.monotonic() - begin >= 0.15
    assert clock.batches == 3


def listening(secret: str = "s") -> tuple[Listener, SimpleQueue[Any], SimpleQueue[int]]:
    got, lost = SimpleQueue[Any](), SimpleQueue[int]()
    return Listener("127.0.0.1", secret, lambda *one: got.put(one), lost.put), got, lost


def unwanted(*told: Any) -> None:
    raise AssertionError(told)


def passed(number: int, **sampling: Any) -> Pass:
    return Pass(
        key=Key(number, 0), way=[Stop(1, 0, 3)], hop=0, begin=0, count=2, prompt=True,
        ids=[1, 2], sampling=Sampling(**sampling),
    )  # fmt: skip


def test_messages_arrive_whole_in_order_and_after_their_delay():
    listener, got, lost = listening()
    begin = time.monotonic()
    link = Link(7, "s", listener.address, unwanted, unwanted, bytes_per_s=20_000.0, latency_s=0.1)
    for number in range(3):
        link.send(passed(number), bytes([number]) * 1000)
    arrived = [got.get(timeout=10) for _ in range(3)]
    assert time.monotonic() - begin >= 0.1 + 3 * 1000 / 20_000
    assert [(s, m.key.request, bytes(p)) for s, m, p in arrived] == [
        (7, number, bytes([number]) * 1000) for number in range(3)
    ]
    assert isinstance(arrived[0][1].key, Key)
    link.close()
    assert lost.get(timeout=10) == 7
    listener.close()


@pytest.mark.parametrize(
    "bad",
    [b"\xff" * 64, b"", framed(Hello(3, "wrong")), framed(Free([])), b"\0" * 8],
    ids=["noise", "nothing", "wrong secret", "no hello", "empty frame"],
)
def test_callers_without_the_secret_are_hung_up_on(bad):
    listener, got, lost = listening()
    with contextlib.suppress(OSError), socket.create_connection(listener.address) as caller:
        caller.sendall(bad)  # or it is hung up on already
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(1) == b""
    assert got.empty()
    assert lost.empty()
    listener.close()


def test_what_cannot_be_sent_is_told_and_the_link_breaks_once():
    listener, _, _ = listening()
    listener.close()
    failed, broke = SimpleQueue[Any](), SimpleQueue[Exception]()
    link = Link(7, "s", listener.address, lambda *one: failed.put(one), broke.put)
    for number in range(3):
        link.send(passed(number))
    told = [failed.get(timeout=10) for _ in range(3)]
    assert [message.key.request for message, _ in told] == [0, 1, 2]
    assert all(isinstance(error, OSError) for _, error in told)
    assert isinstance(broke.get(timeout=10), OSError)
    assert link.broken is not None
    link.send(passed(3))
    assert failed.get(timeout=10)[0].key.request == 3
    assert broke.empty()
    link.close()


def test_a_message_that_fits_no_frame_fails_alone():
    listener, got, _ = listening()
    failed = SimpleQueue[Any]()
    link = Link(7, "s", listener.address, lambda *one: failed.put(one), unwanted)
    link.send(passed(1, seed=1180591620717411303424))
    link.send(passed(2))
    message, error = failed.get(timeout=10)
    assert message.key.request == 1
    assert isinstance(error, OverflowError)
    assert got.get(timeout=10)[1].key.request == 2
    link.close()
    listener.close()


def test_a_links_thread_that_dies_breaks_the_link_and_loses_no_message():
    told, broke = SimpleQueue[int](), SimpleQueue[Exception]()
    listener = Listener("127.0.0.1", "s", lambda _, m, __: told.put(m.key.request), lambda _: None)

    def fails_at_first(message: Message, error: Exception) -> None:
        assert isinstance(message, Pass)
        told.put(message.key.request)
        if isinstance(error, OverflowError):
            raise RuntimeError("a fault of the caller's")

    link = Link(7, "s", listener.address, fails_at_first, broke.put, latency_s=0.5)
    for number, seed in ((0, 5), (1, 1 << 70), (2, 5)):
        link.send(passed(number, seed=seed))
    assert str(broke.get(timeout=10)) == "a fault of the caller's"
    assert sorted(told.get(timeout=10) for _ in range(3)) == [0, 1, 2]
    link.send(passed(3))
    assert told.get(timeout=10) == 3
    listener.close()


@pytest.mark.parametrize("scheduler", ["maxflow", "swarm", "random"])
def test_ways_hold_all_layers_and_the_books_of_a_lane_balance(scheduler):
    asked = replace(experiment(), workload=WorkloadSettings(scheduler=scheduler))
    made = plan(asked, ((0, 4), (2, 6), (1, 5), (4, 6)), partial=True)
    lane = Deployment(asked, made, 0).lanes(made.services)[0]
    ways = [lane.find(50) for _ in range(20)]
    for way in ways:
        assert way is not None
        ends = [0, *(stop.end for stop in way.stops)]
        assert [stop.begin for stop in way.stops] == ends[:-1]
        assert ends[-1] == 6
        lane.learn(way, [Mark(stop.machine, 0.0, 0.1, 0.2) for stop in way.stops])
        lane.count_token(way)
    other = Deployment(asked, made, 0).lanes(made.services)[0]
    adopted = [other.adopt(way.stops, 50) for way in ways if way is not None]
    assert [way.links for way in ways if way] == [way.links for way in adopted if way]
    assert other.kv.free == lane.kv.free
    for way in ways:
        assert way is not None
        lane.finish(way, 50)
    assert lane.kv.free == [holding.kv_entries for holding in lane.kv.holdings]
    assert lane.adopt([Stop(9, 0, 6)], 5) is None
    assert lane.adopt([Stop(1, 0, 6)], 5) is None


def test_without_a_machine_the_flow_shrinks_and_without_a_layers_last_holder_layers_move():
    asked = experiment()
    question, made = ask(asked), plan(asked, TWO)
    less = without(question, made, [1], 0)
    assert not less.moved
    assert less.services[0].intervals == ((0, 3), (0, 0), (0, 3), (3, 6))
    assert 0 < less.services[0].flow < made.flow
    assert without(question, made, [], 0).services == made.services
    moved = without(question, made, [1, 3], 0)
    assert moved.moved
    assert moved.services[0].machines == (0, 2)
    held = {layer for first, end in moved.services[0].intervals for layer in range(first, end)}
    assert held == set(range(6))
    assert without(question, made, [0, 1, 2, 3], 0).services == ()


def test_deployments_that_cannot_be_are_refused():
    asked = experiment()
    made = plan(asked, TWO)
    queue = replace(asked, workload=WorkloadSettings(scheduler="shortest_queue"))
    with pytest.raises(InputError, match="shortest queue"):
        Deployment(queue, made, 0)
    fleet = Deployment(asked, made, 0)
    wires = {(wire.tail, wire.head) for wire in fleet.wires(made.services)}
    assert {(HEAD, m) for m in range(4)} | {(m, HEAD) for m in range(4)} <= wires
    assert all(wire.latency_s == wire.bytes_per_s == 0 for wire in fleet.wires(made.services))


def test_profiles_measured_here_are_read_back_in_the_shipped_schema(tmp_path: Path):
    kinds = {"m": KindSource(slower=3.0, memory_gb=0.02, most_layers=4)}
    asked = replace(experiment(), profile=ProfileSource(source=HERE, kinds=kinds))
    with pytest.raises(InputError, match="nothing was measured here yet"):
        asked.load_profiles(asked.cluster.load())
    said = measure(asked, tmp_path, seed=0)
    assert "machine kind m" in said
    profile = read_profiles(tmp_path)["m"]
    assert profile.max_layers == 4
    assert profile.prompt(2048) > profile.prompt(128) > 0
    assert profile.decode(64) > 0
    assert all(limit.prompt_tokens <= profile.prompt.tokens[-1] for limit in profile.limits)
    rate, latency = (tmp_path / "links.csv").read_text().splitlines()[1].split(",")[2:]
    assert float(rate) > 0
    assert 0 < float(latency) < 100
    ready = replace(asked, profile=ProfileSource(source=str(tmp_path)))
    assert ask(ready).speed.rate("m", 4) > 0


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_driven_workload_is_measured_and_leaves_nothing(mode):
    workload = WorkloadSettings(
        mode=mode, initial=3, tokens_per_s=2000.0, duration_s=3.0, warm_up_s=0.5
    )
    asked = replace(experiment(load="workload"), workload=workload)

    async def main() -> None:
        async with local(asked, plan(asked, TWO)) as serving:
            measured = (await drive(serving, seed=0))["all"]
            assert measured.window_s == 3.0
            assert len(measured.prompt_s) > 0
            assert measured.decode_tokens_per_s > 0
            assert (measured.decode_s >= 0).all()
            books = serving.head.books
            assert books.open() == 0
            assert measured.sent == books.sent
            assert (measured.failed, books.failed) == (0, 0)

    asyncio.run(main())


def test_a_trace_shows_machines_links_and_requests():
    request = Running(4, Ask([1, 2], 2), 0.0)
    marks = [Mark(0, 10.0, 10.1, 10.3), Mark(1, 10.3, 10.4, 10.5)]
    request.marks = [(10.6, marks), (10.9, [Mark(0, 10.6, 10.7, 10.8)])]
    spans = [BatchSpan(0, 2, 10.1, 0.2, 2, 0)]
    events = trace_events(spans, [request], {0: (0, 3), 1: (3, 6)})
    rows = {e["args"]["name"] for e in events if e["ph"] == "M"}  # type: ignore[index]
    assert {"machine 0: layers 0-2", "coordinator to 0", "0 to 1", "1 to coordinator"} <= rows
    named = {e["name"]: e for e in events if e["ph"] == "X"}
    assert named["prompt"]["ts"] == 0.0
    assert named["prompt"]["dur"] == pytest.approx(0.6e6)
    assert named["token 1"]["ts"] == pytest.approx(0.6e6)
    assert named["layer 2"]["args"] == {"prompt tokens": 2, "decodes": 0}
    assert all(e["dur"] >= 0 for e in events if e["ph"] == "X")


def test_messages_read_back():
    for message in (
        passed(1),
        Answer(Key(1, 2), 3, 4.0, [Mark(0, 1.0, 2.0, 3.0)]),
        Free([Key(1, 0)]),
    ):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message) == message


def test_a_folders_own_tokenizer_is_used(tmp_path: Path):
    tokenizers = pytest.importorskip("tokenizers")
    with pytest.raises(InputError, match="no such file"):
        tokenizer_of(str(tmp_path))
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"hello": 0, "you": 1, "?": 2}, "?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    found = tokenizer_of(str(tmp_path))
    assert found.encode("hello you") == [0, 1]
    assert found.decode([1, 0]) == "you hello"
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        tokenizer_of(str(tmp_path))
