"""Nothing a client sends can hurt another client: killers, poison, dying threads, noise."""

import asyncio
import json
import random
import socket
import struct
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from http.client import IncompleteRead
from typing import Any

import pytest

from helix.run.messages import Free, Key, Message
from helix.run.request import Running, Token
from helix.run.serving import HURT_S
from helix.run.stage import Item, Stage
from helix.run.stops import StopAt
from tests.helix.bodies import asked
from tests.helix.local_fleet import answer, experiment
from tests.helix.local_service import LocalService, Said, running

ALLOWED = {200, 400, 404, 408, 413, 429, 503, 504}
BODIES = 400
HELLO, LONG = list(b"Hello"), 60
POISON = 66  # a token id ("B") on which the sabotaged machines err or die


@pytest.fixture(scope="module")
def service() -> Iterator[LocalService]:
    asked = experiment(machines=4, restart=True, patience_s=30.0, longest=512)
    with running(asked, ((0, 3), (3, 6), (0, 3), (3, 6))) as one:
        one.expected = one.text(max_tokens=12)
        (long,) = beside(one, 1)
        one.long = tuple(long.result(60))
        yield one


@pytest.fixture(autouse=True)
def all_is_well_again(service: LocalService, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test ordinary requests are answered as before it, and nothing is held."""
    yield
    monkeypatch.undo()
    service.serving._hurt = -HURT_S  # what a test did is not told for long
    service.wait_for(lambda: not service.serving.gone and not service.serving.broken)
    assert service.text(max_tokens=12) == service.expected
    assert service.settled()
    workers = [one.actor.worker for one in service.serving.fleet.workers.values()]
    assert sorted(one.machine for one in workers) == [0, 1, 2, 3]
    assert not any(one.ended or one._idle.is_set() for one in workers)


def is_error(said: Said) -> bool:
    """Whether a response is the one form of error, in one sentence."""
    error = said.json["error"]
    assert set(error) == {"message", "type", "param", "code", "id"}
    assert error["code"] == said.status
    assert error["id"] == said.headers["X-Request-Id"]
    assert error["message"]
    return "\n" not in error["message"]


@pytest.mark.parametrize(
    ("killer", "status", "param"),
    [
        ('{"prompt":"a","seed":1180591620717411303424}', 400, "seed"),
        ('{"prompt":"a","seed":-9223372036854775809}', 400, "seed"),
        ('{"prompt":"Hi","temperature":1e-45}', 200, None),
        ('{"prompt":"Hi","temperature":5e-324}', 200, None),
        ('{"prompt":"Hi","top_p":1e-45}', 200, None),
        ('{"prompt":"Hi","top_p":5e-324,"temperature":2}', 200, None),
        ('{"prompt":"Hi","min_p":1,"top_k":1,"temperature":2}', 200, None),
        ('{"prompt":"Hi","logit_bias":{"5":-100,"7":100},"repetition_penalty":0.01}', 200, None),
        ('{"prompt":"Hi","logit_bias":{"1180591620717411303424":1}}', 400, "logit_bias"),
        ('{"prompt":"Hi","min_tokens":3,"stop_token_ids":[%s0]}' % ("9," * 127), 200, None),
        ('{"prompt":[1180591620717411303424]}', 400, "prompt"),
        ('{"prompt":[1%s]}' % ("0" * 5000), 400, "prompt[0]"),
        ('{"prompt":"Hi","user":1%s}' % ("0" * 5000), 400, "user"),
        ('{"prompt":"Hi","temperature":1e999}', 400, "temperature"),
        ('{"prompt":"Hi","no_such_field":1}', 400, "no_such_field"),
        ('{"prompt":"Hi","user":%s}' % ("[" * 100_000), 400, None),
        ('{"prompt":"Hi","user":{"any":["thing"]}}', 200, None),
    ],
)
def test_what_killed_the_service_is_refused_or_answered(service, killer, status, param):
    said = service.ask("/v1/completions", killer.encode())
    assert said.status == status
    if status != 200:
        assert is_error(said)
        assert said.json["error"]["param"] == param


@pytest.mark.parametrize(
    ("headers", "data", "status"),
    [
        ({}, b'{"prompt":"\xff"}', 400),
        ({}, b'{"prompt":"\\ud800"}', 400),
        ({"Content-Encoding": "gzip"}, b'{"prompt":"a"}', 400),
        ({"Content-Encoding": "br"}, b"\x00", 400),
        ({}, b"[" * (5 << 20), 413),
        ({}, b"", 400),
    ],
)
def test_bodies_that_are_no_text_are_refused(service, headers, data, status):
    said = service.ask("/v1/completions", data, **headers)
    assert said.status == status
    assert is_error(said)
    assert is_error(service.ask("/v1/nothing"))
    assert service.ask("/health", b"{}").status == 405


def sabotage(monkeypatch: pytest.MonkeyPatch, harm: Any) -> None:
    """Let every machine do harm where a prompt with the poison passes its first layer."""
    embed, layer = Stage.embed, Stage.layer
    bitter = set[tuple[int, int]]()

    def marked(self: Stage, item: Item, ids: list[int]) -> None:
        if POISON in ids:
            bitter.add(item.key)
        embed(self, item, ids)

    def harmed(self: Stage, number: int, items: list[Item]) -> None:
        if number == 0 and any(item.key in bitter for item in items):
            harm(self, items)
        layer(self, number, items)

    monkeypatch.setattr(Stage, "embed", marked)
    monkeypatch.setattr(Stage, "layer", harmed)


def beside(service: LocalService, number: int) -> list[Future[list[int]]]:
    """Begin ordinary requests that go on while something else happens."""
    head = [
        asyncio.run_coroutine_threadsafe(answer(service.serving, HELLO, LONG), service.loop)
        for _ in range(number)
    ]
    service.wait_for(lambda: service.serving.head.running)
    return head


def test_an_error_in_computing_fails_this_request_only_and_is_tried_twice(service, monkeypatch):
    tries = list[int]()

    def raises(_: Stage, items: list[Item]) -> None:
        tries.append(len(items))
        raise RuntimeError("the poison of the test")

    sabotage(monkeypatch, raises)
    before, others = service.health()["books"], beside(service, 8)
    said = service.ask("/v1/completions", {"prompt": "ABC", "max_tokens": 5})
    assert said.status == 500
    assert is_error(said)
    assert "RuntimeError: the poison of the test" in said.json["error"]["message"]
    assert {tuple(one.result(60)) for one in others} == {service.long}
    assert tries.count(1) == 2
    health = service.health()
    assert health["books"]["failed"] == before["failed"] + 1
    assert (health["status"], health["lost"]) == ("ok", [])


def test_an_error_that_another_machine_does_not_have_costs_nothing(service, monkeypatch):
    bad = list[Stage]()

    def raises_here(stage: Stage, _: list[Item]) -> None:
        bad.append(stage)
        if stage is bad[0] and len(bad) == 1:
            raise RuntimeError("this once")

    expected = service.text(prompt="ABC", max_tokens=5)
    sabotage(monkeypatch, raises_here)
    assert service.text(prompt="ABC", max_tokens=5) == expected
    assert len(bad) == 1 + 5


def test_a_request_that_ends_machines_ends_three_and_costs_no_other_request(service, monkeypatch):
    ended = list[Stage]()

    def dies(stage: Stage, items: list[Item]) -> None:
        if len(items) == 1:
            ended.append(stage)
            monkeypatch.setattr(stage, "probe", partial(_raise, OSError("no device")))
        raise RuntimeError("a broken device")

    sabotage(monkeypatch, dies)
    before, others = service.health()["books"], beside(service, 8)
    said = service.ask("/v1/completions", {"prompt": "ABC", "max_tokens": 5})
    assert said.status == 500
    assert "3 machines were lost under it one after the other" in said.json["error"]["message"]
    assert len(ended) == 3
    assert {tuple(one.result(60)) for one in others} == {service.long}
    assert service.health()["books"]["failed"] == before["failed"] + 1


def _raise(error: Exception) -> None:
    raise error


def test_a_thread_of_the_heads_link_that_dies_costs_a_machine_and_no_request(service):
    def dies(message: Message, error: Exception) -> None:
        if isinstance(error, OverflowError):
            raise RuntimeError("a thread that dies")

    others = beside(service, 4)
    link = service.fleet._links[0]
    link._failed = dies
    link._waiting.put((Free([Key(1 << 70, 0)]), b""))
    service.wait_for(lambda: service.health()["status"] == "degraded", 5.0)
    assert 0 in service.health()["lost"]
    assert "helix_machines_lost 1.0" in service.ask("/metrics").body.decode()
    assert {tuple(one.result(60)) for one in others} == {service.long}
    service.wait_for(lambda: service.health()["status"] == "ok")


def test_a_link_between_machines_that_breaks_is_made_again(service):
    others = beside(service, 4)
    workers = {m: one.actor.worker for m, one in service.fleet.workers.items()}
    tails = [(m, to) for m in (0, 2) for to in (1, 3) if to in workers[m]._links]
    for tail, head in tails:
        workers[tail]._links[head]._break(ConnectionResetError("pulled out"))
    service.wait_for(lambda: service.serving.faults["link"] >= len(tails), 5.0)
    assert {tuple(one.result(60)) for one in others} == {service.long}
    service.wait_for(lambda: service.health()["status"] == "ok")
    assert service.health()["lost"] == []
    assert all(workers[tail]._links[head].broken is None for tail, head in tails)


def test_a_task_that_dies_is_told_and_begun_again(service, monkeypatch):
    times = list[float]()

    def dies_once() -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            raise RuntimeError("a task that dies")

    monkeypatch.setattr(service.serving.head, "watch", dies_once)
    service.wait_for(lambda: service.health()["status"] == "degraded", 5.0)
    assert service.health()["faults"]["watch"] == 1
    assert 'helix_faults{part="watch"} 1.0' in service.ask("/metrics").body.decode()
    service.wait_for(lambda: len(times) > 2)


def test_an_error_of_the_heads_own_fails_the_request_it_handles(service, monkeypatch):
    def raises(request: Running, token: Token) -> None:
        if request.ask.ids == list(b"ABC"):
            raise RuntimeError("of a listener")

    monkeypatch.setattr(service.serving.head, "on_token", [raises])
    assert service.ask("/v1/completions", {"prompt": "ABC"}).status == 500
    assert service.health()["faults"]["head"] == 1


def test_an_error_in_a_handler_is_a_500_with_an_id(service, monkeypatch):
    monkeypatch.setattr(StopAt, "add", lambda *_: _raise(RuntimeError("of the handler")))
    said = service.ask("/v1/completions", {"prompt": "ABC", "stop": "x"})
    assert said.status == 500
    assert is_error(said)
    assert "of the handler" not in said.body.decode()  # the log has it
    assert service.health()["faults"]["http"] >= 1
    assert service.settled()


def test_a_stream_that_is_cut_short_never_ends_like_a_whole_one(service, monkeypatch):
    add, pieces = StopAt.add, list[str]()

    def raises_later(self: StopAt, text: str) -> str:
        pieces.append(text)
        if len(pieces) > 5:
            raise RuntimeError("of the handler")
        return add(self, text)

    monkeypatch.setattr(StopAt, "add", raises_later)
    body = json.dumps({"prompt": "ABC", "stream": True, "max_tokens": 30}).encode()
    with pytest.raises(IncompleteRead) as cut:
        urllib.request.urlopen(f"{service.url}/v1/completions", body, timeout=60).read()
    assert b'"error"' in cut.value.partial
    assert b"[DONE]" not in cut.value.partial


def test_clients_that_stall_or_vanish_hurt_nobody(service):
    address = tuple(service.url.removeprefix("http://").split(":"))
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n"
    streams = b'{"prompt":"Hi","stream":true,"max_tokens":400,"ignore_eos":true}'
    asked = head.replace(b"500", str(len(streams)).encode()) + streams
    callers = [socket.create_connection(address) for _ in range(60)]
    for number, caller in enumerate(callers):
        caller.sendall((head, head[:30], b"\xff" * 100, asked, head + b"{")[number % 5])
    assert service.text(max_tokens=12) == service.expected
    for caller in callers:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
    service.wait_for(lambda: service.serving.head.books.open() == 0)


def test_hundreds_of_odd_bodies_hurt_nothing(service):
    draw, seen = random.Random(0), Counter[int]()
    for number in range(BODIES):
        path, sent = asked(draw)
        said = service.ask(path, sent)
        seen[said.status] += 1
        assert said.status in ALLOWED, (path, sent[:300], said)
        assert said.status == 200 or is_error(said), (path, sent[:300], said)
        if number % 50 == 0:
            assert service.text(max_tokens=12) == service.expected
    assert seen[200] > BODIES / 10
    assert seen[400] > BODIES / 10
    health = service.health()
    assert (health["status"], health["lost"]) == ("ok", [])
