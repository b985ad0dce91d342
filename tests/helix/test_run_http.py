"""The OpenAI-compatible interface: whole and streamed answers, refusals, health, metrics, drain."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix.run.http import listening
from helix.run.refusals import BadRequest
from helix.run.requests_schema import Completion, read
from helix.run.serving import Serving
from helix.run.stops import StopAt
from helix.run.tokens import ByteTokenizer, Unfolding
from tests.helix.local_fleet import answer, balanced, experiment, local, plan, settled

Try = Callable[[aiohttp.ClientSession, Serving], Awaitable[None]]
HELLO = list(b"Hello")


def serve(check: Try, **settings: Any) -> None:
    async def main() -> None:
        asked = experiment(machines=2, **settings)
        async with (
            local(asked, plan(asked, ((0, 3), (3, 6)))) as serving,
            listening(serving, "127.0.0.1", 0) as address,
            aiohttp.ClientSession(address) as session,
        ):
            await check(session, serving)
            assert all(f.blocks_used == 0 for f in await settled(serving))
            assert balanced(serving)

    asyncio.run(main())


async def post(session: aiohttp.ClientSession, **body: Any) -> tuple[int, Any]:
    async with session.post("/v1/completions", json=body) as response:
        return response.status, await response.json()


async def events(session: aiohttp.ClientSession, **body: Any) -> list[Any]:
    async with session.post("/v1/completions", json={"stream": True, **body}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_whole_and_streamed_answers_are_the_heads():
    async def check(session: aiohttp.ClientSession, serving: Serving) -> None:
        expected = await answer(serving, HELLO)
        text = ByteTokenizer().decode(expected)
        asked = {"prompt": "Hello", "max_tokens": 12, "temperature": 0}
        status, whole = await post(session, **asked)
        assert status == 200
        assert whole["object"] == "text_completion"
        assert whole["choices"][0]["text"] == text
        assert whole["choices"][0]["finish_reason"] == "length"
        assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}
        for prompt in (HELLO, ["Hello"], [HELLO]):
            assert (await post(session, **{**asked, "prompt": prompt}))[1]["choices"][0][
                "text"
            ] == text
        found = await events(session, **asked, stream_options={"include_usage": True})
        assert "".join(e["choices"][0]["text"] for e in found[:-1]) == text
        assert [e["choices"][0]["finish_reason"] for e in found[:-1]][-1] == "length"
        assert found[-1]["choices"] == []
        assert found[-1]["usage"]["completion_tokens"] == 12

    serve(check)


def test_sampling_is_repeatable_by_seed():
    async def check(session: aiohttp.ClientSession, _: Serving) -> None:
        asked = {"prompt": "Hello", "max_tokens": 12, "temperature": 1.0}
        one, same, other = [
            (await post(session, **asked, seed=seed))[1]["choices"][0]["text"] for seed in (1, 1, 2)
        ]
        assert one == same != other

    serve(check)


def test_stop_texts_end_an_answer_and_are_not_part_of_it():
    async def check(session: aiohttp.ClientSession, serving: Serving) -> None:
        text = ByteTokenizer().decode(await answer(serving, HELLO, 40))
        stop = text[5:7]
        asked = {"prompt": "Hello", "max_tokens": 40, "temperature": 0, "stop": [stop, "zzz"]}
        _, whole = await post(session, **asked)
        assert whole["choices"][0]["text"] == text[: text.index(stop)]
        assert whole["choices"][0]["finish_reason"] == "stop"
        found = await events(session, **asked)
        assert "".join(e["choices"][0]["text"] for e in found) == text[: text.index(stop)]

    serve(check)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"prompt": 5}, 400, "prompt"),
        ({}, 400, "prompt"),
        ({"prompt": ""}, 400, "the prompt is empty"),
        ({"prompt": [300]}, 400, "outside the vocabulary"),
        ({"prompt": ["a", 1]}, 400, "prompt mixes tokens with prompts"),
        ({"prompt": "a", "max_tokens": 0}, 400, "max_tokens is 0"),
        ({"prompt": "a", "max_tokens": 5000}, 400, "4096 tokens of context"),
        ({"prompt": "a", "temperature": 3}, 400, "temperature: Expected `float` <= 2"),
        ({"prompt": "a", "top_p": 0}, 400, "top_p: Expected `float` > 0"),
        ({"prompt": "a", "n": 200}, 400, "n: Expected `int` <= 128"),
        ({"prompt": "a", "logprobs": 21}, 400, "logprobs: Expected `int` <= 20"),
        ({"prompt": "a", "tools": []}, 400, "the field 'tools' is not supported"),
        ({"prompt": "a", "stop": ["", "b"]}, 400, "stop[0]: Expected `str` of length >= 1"),
        ({"prompt": "a", "suffix": "b"}, 400, "suffix: Expected `str` of length <= 0"),
        ({"prompt": "a", "n": 3, "best_of": 2}, 400, "best_of is 2, less than n 3"),
        ({"prompt": "a", "best_of": 2, "stream": True}, 400, "a stream cannot tell the best"),
        ({"prompt": ["a"] * 100, "n": 2}, 400, "100 prompts times 2 answers"),
        ({"prompt": "a", "logit_bias": {"259": 1}}, 400, "token 259 is outside"),
        ({"prompt": "a", "stop_token_ids": [-1]}, 400, "token -1 is outside"),
        ({"prompt": "a", "min_tokens": 5, "max_tokens": 4}, 400, "min_tokens is 5"),
        ({"prompt": "a", "max_tokens": 5, "max_completion_tokens": 4}, 400, "max_tokens is 5"),
        ({"prompt": "a", "response_format": {"type": "json_object"}}, 400, "'json_object' is not"),
        ({"prompt": "a", "stream_options": {"x": 1}}, 400, "'stream_options.x' is not supported"),
        ({"prompt": "a", "model": "gpt"}, 404, "there is no model 'gpt'"),
    ],
)
def test_bad_requests_are_one_sentence(body: dict[str, Any], status: int, said: str):
    async def check(session: aiohttp.ClientSession, serving: Serving) -> None:
        found, answered = await post(session, **body)
        assert found == status
        assert said in answered["error"]["message"]
        assert "\n" not in answered["error"]["message"]
        async with session.post("/v1/completions", data=b"not json") as response:
            assert response.status == 400
        async with session.get("/v1/nothing") as response:
            assert response.status == 404
        assert serving.head.books.served == 0

    serve(check)


def test_health_models_and_metrics():
    async def check(session: aiohttp.ClientSession, serving: Serving) -> None:
        await post(session, prompt="Hello", max_tokens=3)
        async with session.get("/health") as response:
            assert response.status == 200
            health = await response.json()
            assert health["status"] == "ok"
            assert sorted(health["machines"]) == ["0", "1"]
            assert health["books"]["served"] == 1
        async with session.get("/v1/models") as response:
            assert (await response.json())["data"][0]["id"] == "tiny"
        async with session.get("/metrics") as response:
            text = await response.text()
        assert 'helix_requests_total{outcome="served"} 1.0' in text
        assert "helix_tokens_total 3.0" in text
        assert "helix_first_token_seconds_count 1.0" in text
        assert 'helix_kv_blocks_used{machine="1"}' in text
        serving.fleet.kill(0)
        while serving.head.lanes:
            await asyncio.sleep(0.01)
        async with session.get("/health") as response:
            assert response.status == 503
            assert (await response.json())["lost"] == [0]

    serve(check)


def test_draining_ends_what_is_at_work_and_refuses_what_is_new():
    async def check(session: aiohttp.ClientSession, serving: Serving) -> None:
        asked = {"prompt": "Hello", "max_tokens": 60, "temperature": 0, "ignore_eos": True}
        at_work = asyncio.ensure_future(post(session, **asked))
        while not serving.head.running:
            await asyncio.sleep(0.005)
        draining = asyncio.ensure_future(serving.drain(20))
        await asyncio.sleep(0)
        status, refused = await post(session, **asked)
        assert (status, refused["error"]["message"]) == (503, "the service is shutting down")
        status, whole = await at_work
        assert (status, whole["usage"]["completion_tokens"]) == (200, 60)
        await draining

    serve(check)


def test_a_client_that_goes_away_leaves_nothing():
    async def check(session: aiohttp.ClientSession, serving: Serving) -> None:
        body = {"prompt": "Hello", "max_tokens": 3000, "stream": True, "temperature": 0}
        async with session.post("/v1/completions", json=body) as response:
            await response.content.readany()
        while serving.head.books.open():
            await asyncio.sleep(0.01)
        assert serving.head.books.cancelled == 1

    serve(check)


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=4), max_size=3), st.data())
def test_stop_texts_are_found_however_the_text_comes(text, stops, data):
    pieces, left = list[str](), text
    while left:
        size = data.draw(st.integers(1, len(left)))
        pieces, left = [*pieces, left[:size]], left[size:]
    stop, out = StopAt(stops), ""
    for piece in pieces:
        out += stop.add(piece)
        if stop.found:
            break
    out += "" if stop.found else stop.rest()
    places = [text.find(s) for s in stops if s in text]
    assert out == (text[: min(places)] if places else text)


@given(st.text(max_size=20).map(str.encode) | st.binary(max_size=60))
def test_characters_come_whole_and_once(data):
    unfolding = Unfolding(ByteTokenizer())
    pieces = [unfolding.add(byte) for byte in data]
    assert "".join(pieces) + unfolding.rest() == data.decode(errors="replace")
    assert unfolding.text == data.decode(errors="replace")


def test_a_body_that_is_no_request_is_refused():
    with pytest.raises(BadRequest, match="the body is not a completion request"):
        read(b"[]", Completion)
