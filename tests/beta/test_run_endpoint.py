"""The endpoint's errors: every one is JSON of one form, whatever a client sends."""

import asyncio
import io
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from beta.inputs.shapes import SHAPES, Shape
from beta.run.asked import asked_of
from beta.run.http import LARGEST_BODY, application, body_of
from beta.run.specs import ModelSpec
from beta.run.text import Tokenizers
from common.errors import InputError

MODEL = ModelSpec(name="m", shape=SHAPES["bert-micro"], seed=0, slo_s=1.0)
RIGHT = {"tokens": [1, 2, 3]}


async def read(request: web.Request) -> web.Response:
    """A handler that reads what the service reads, and echoes it."""
    asked = asked_of(await body_of(request), MODEL, Tokenizers((MODEL,)).tokens)
    return web.json_response(asked.tokens)


async def broken(_: web.Request) -> web.Response:
    raise ZeroDivisionError("a fault of the service, with details")


def ask(check: Callable[[aiohttp.ClientSession], Awaitable[None]]) -> None:
    async def main() -> None:
        app = application([web.post("/read", read), web.get("/broken", broken)])
        runner = web.AppRunner(app, access_log=None, auto_decompress=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            host, port = runner.addresses[0][:2]
            async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
                await check(session)
        finally:
            await runner.cleanup()

    asyncio.run(main())


async def told(response: aiohttp.ClientResponse) -> str:
    """The sentence of an error, once its form is checked."""
    found = json.loads(await response.read())
    assert set(found) == {"error", "rejected"}
    assert found["rejected"] is False
    assert "\n" not in found["error"]
    return found["error"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b'{"tokens": [1], "\xff": 1}', {}, 400, "not UTF-8"),
        (b"\xff\xfe", {}, 400, "expected"),
        (b'{"tokens": [1]}', {"Content-Encoding": "gzip"}, 400, "'gzip' is not supported"),
        (b"\x1f\x8b\x08", {"Content-Encoding": "deflate"}, 400, "'deflate' is not supported"),
        (b" " * (LARGEST_BODY + 1), {}, 413, f"larger than {LARGEST_BODY} bytes"),
        (b"", {}, 400, "expected"),
    ],
)
def test_a_wrong_body_is_told_in_the_one_form(body, headers, status, said):
    async def check(session: aiohttp.ClientSession) -> None:
        async with session.post("/read", data=io.BytesIO(body), headers=headers) as response:
            assert response.status == status
            assert said in await told(response)
        async with session.post("/read", json=RIGHT) as response:
            assert (response.status, await response.json()) == (200, [1, 2, 3])

    ask(check)


def test_what_is_not_there_and_what_is_broken_are_told_in_the_one_form():
    async def check(session: aiohttp.ClientSession) -> None:
        for path, method, status in (("/no", "GET", 404), ("/read", "GET", 405)):
            async with session.request(method, path) as response:
                assert response.status == status
                assert await told(response)
        async with session.get("/broken") as response:
            assert response.status == 500
            assert await told(response) == "an error of the service: ZeroDivisionError"

    ask(check)


def test_hundreds_of_odd_bodies_are_400_and_right_ones_between_are_answered():
    draw = random.Random(0)
    odd = [None, -1, 2**70, 1e300, "a", [], [1.5], ["1"], [2**70], {}, True]

    async def check(session: aiohttp.ClientSession) -> None:
        for number in range(300):
            text = json.dumps(
                {**RIGHT, draw.choice(("tokens", "text", "slo_s", "x")): draw.choice(odd)}
            )
            at = draw.randrange(len(text))
            body = draw.choice(
                (
                    text.encode(),
                    draw.randbytes(50),
                    text[:at].encode() + b"\xff" + text[at:].encode(),
                )
            )
            async with session.post("/read", data=body) as response:
                assert response.status in (200, 400)
                assert response.status == 200 or await told(response)
            if number % 30 == 0:
                async with session.post("/read", json=RIGHT) as response:
                    assert await response.json() == [1, 2, 3]

    ask(check)


def test_text_is_cut_into_tokens_by_the_folders_tokenizer(tmp_path: Path):
    from transformers import BertConfig, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "many", "models", "##s", "share"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    BertConfig(vocab_size=len(words)).save_pretrained(tmp_path)
    shape = Shape(folder=str(tmp_path), vocabulary=len(words), sequence=5)
    model = ModelSpec(name="m", shape=shape, seed=0, slo_s=None)
    tokenize = Tokenizers((model,)).tokens
    found = asked_of(json.dumps({"text": "Many models share"}).encode(), model, tokenize)
    assert found.tokens == [2, 5, 6, 8, 3]
    unknown = asked_of(json.dumps({"text": "what share"}).encode(), model, tokenize)
    assert unknown.tokens == [2, 1, 8, 3]
    with pytest.raises(InputError, match="6 tokens; m takes 1 to 5"):  # never cut without a word
        asked_of(json.dumps({"text": "many models share many"}).encode(), model, tokenize)
