"""The Open Inference Protocol beside our own form, the key, and the OpenAPI document."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from beta.inputs.examples import serve
from beta.inputs.serving import ServeSettings
from beta.run.endpoint import open_endpoint
from beta.run.openapi import document
from beta.run.profile import prepare
from beta.run.tensors import MOST_ROWS, inference_of, rows_of
from common.artifact import Ask, Case, with_field
from common.errors import InputError
from tests.beta.test_run_overload import controller_over

INFER, IDS = "/v2/models/m/infer", {"name": "input_ids", "datatype": "INT64"}
Check = Callable[[aiohttp.ClientSession], Awaitable[None]]


def ask(check: Check, *, key: str = "", opened: bool = True, seconds: float = 0.0) -> None:
    """Check a controller over a manager that answers 1.0 after so many seconds."""

    async def main() -> None:
        controller = controller_over([seconds])
        controller.opened = opened
        changes = {"host": "127.0.0.1", "api_key": key}
        controller.deployment = msgspec.structs.replace(controller.deployment, **changes)
        runner, url = await open_endpoint(controller)
        try:
            async with aiohttp.ClientSession(url) as session:
                await check(session)
        finally:
            await runner.cleanup()
        assert controller.books.totals().balanced

    asyncio.run(main())


async def got(session: aiohttp.ClientSession, path: str, **options: Any) -> tuple[int, Any]:
    async with session.get(path, **options) as response:
        return response.status, await response.json()


async def posted(session: aiohttp.ClientSession, body: Any, path: str = INFER) -> tuple[int, Any]:
    async with session.post(path, json=body) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_tensors_are_answered_row_by_row(data: list[Any]):
    async def check(session: aiohttp.ClientSession) -> None:
        both = {"id": "7", "inputs": [{**IDS, "shape": [2, 3], "data": data}]}
        status, answer = await posted(session, both)
        assert status == 200
        assert answer == {
            "model_name": "m",
            "model_version": "1",
            "id": "7",
            "outputs": [
                {"name": "logits", "datatype": "FP32", "shape": [2, 1], "data": [1.0, 1.0]},
                {"name": "label", "datatype": "INT64", "shape": [2], "data": [0, 0]},
            ],
        }
        only = {"inputs": [{**IDS, "shape": [1, 1], "data": [1]}], "outputs": [{"name": "label"}]}
        status, answer = await posted(session, only, "/v2/models/m/versions/1/infer")
        assert [output["name"] for output in answer["outputs"]] == ["label"]
        assert "id" not in answer

    ask(check)


def test_a_mask_cuts_rows():
    ids = {**IDS, "shape": [2, 3], "data": [1, 2, 0, 4, 5, 6]}
    mask = {**ids, "name": "attention_mask", "data": [1, 1, 0, 1, 1, 1]}
    asked = inference_of(json.dumps({"inputs": [ids, mask]}).encode())
    assert rows_of(asked) == [[1, 2], [4, 5, 6]]
    holes = {**mask, "data": [1, 0, 1, 1, 1, 1]}
    with pytest.raises(InputError, match="ones, then zeros"):
        rows_of(inference_of(json.dumps({"inputs": [ids, holes]}).encode()))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\xff", "expected"),
        (b'{"inputs": [], "\xff": 1}', "not UTF-8"),
        (b"{}", "expected"),
        (b'{"inputs": []}', "inputs are []"),
        ({**IDS, "shape": [1, 2], "data": [1]}, "1 values in data"),
        ({**IDS, "shape": [2], "data": [1, 2]}, "expected [requests, tokens]"),
        ({**IDS, "shape": [1, 2], "data": [[1], [2]]}, "other rows"),
        ({**IDS, "shape": [1, 2], "data": [1, 0.5]}, "whole numbers"),
        ({**IDS, "shape": [MOST_ROWS + 1, 1], "data": []}, f"at most {MOST_ROWS}"),
        ({**IDS, "shape": [1, 1], "data": [5000]}, "token ids of m"),
        ({**IDS, "shape": [1, 1], "data": [1], "datatype": "FP32"}, "FP32"),
        ({**IDS, "shape": [1, 1], "data": [1], "name": "text"}, "inputs are ['text']"),
        ({"inputs": [], "parameters": {}, "outputs": [{"name": "x"}]}, "no output 'x'"),
    ],
)
def test_wrong_requests_are_told_in_the_protocols_form(body: Any, said: str):
    async def check(session: aiohttp.ClientSession) -> None:
        sent = body
        if isinstance(sent, dict):
            sent = json.dumps(sent if "inputs" in sent else {"inputs": [sent]}).encode()
        async with session.post(INFER, data=sent) as response:
            told = await response.json()
            assert (response.status, set(told)) == (400, {"error"})
            assert said in told["error"]

    ask(check)


def test_own_targets_refusals_and_unknown_names_have_their_status():
    right = {"inputs": [{**IDS, "shape": [1, 1], "data": [1]}]}

    async def check(session: aiohttp.ClientSession) -> None:
        assert (await posted(session, {**right, "parameters": {"slo_s": 0.001}}))[0] == 429
        assert (await posted(session, {**right, "parameters": {"slo_s": "x"}}))[0] == 400
        assert (await posted(session, {**right, "parameters": {"slo_s": 0.05}}))[0] == 504
        assert (await posted(session, right, "/v2/models/who/infer"))[0] == 404
        assert (await got(session, "/v2/models/who"))[0] == 404
        zipped = {"Content-Encoding": "gzip"}
        async with session.post(INFER, data=b"x", headers=zipped) as response:
            assert response.status == 400
        async with session.get(INFER) as response:
            assert response.status == 405

    ask(check, seconds=0.5)


def test_health_and_metadata_say_what_serves_and_when():
    async def check(session: aiohttp.ClientSession) -> None:
        assert (await got(session, "/v2"))[1]["name"] == "beta"
        assert await got(session, "/v2/health/live") == (200, {"live": True})
        assert await got(session, "/v2/health/ready") == (200, {"ready": True})
        assert await got(session, "/v2/models/m/ready") == (200, {"name": "m", "ready": True})
        status, model = await got(session, "/v2/models/m")
        assert status == 200
        assert model["inputs"] == [{"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]}]
        assert model["outputs"][0]["shape"] == [-1, 5]

    async def early(session: aiohttp.ClientSession) -> None:
        assert await got(session, "/v2/health/live") == (200, {"live": True})
        assert await got(session, "/v2/health/ready") == (503, {"ready": False})
        assert (await got(session, "/v2/models/m/ready"))[0] == 503
        right = {"inputs": [{**IDS, "shape": [1, 1], "data": [1]}]}
        assert await posted(session, right) == (503, {"error": "the service is starting"})

    ask(check)
    ask(early, opened=False)


def test_with_a_key_only_health_is_for_everybody():
    async def check(session: aiohttp.ClientSession) -> None:
        for path in ("/healthz", "/readyz", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
            assert (await got(session, path))[0] == 200
        for path in ("/v1/models", "/v2", "/v2/models/m"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic key"}):
                status, told = await got(session, path, headers=headers)
                assert status == 401
                assert "Bearer KEY" in told["error"]
            right = {"Authorization": "Bearer key"}
            assert (await got(session, path, headers=right))[0] == 200

    ask(check, key="key")


def test_a_key_is_named_and_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "key").write_text(" secret\n")
    assert ServeSettings(api_key=f"file:{tmp_path / 'key'}").key() == "secret"
    monkeypatch.setenv("BETA_KEY", "k")
    assert ServeSettings(api_key="env:BETA_KEY").key() == "k"
    with pytest.raises(InputError, match="a key itself"):
        ServeSettings(api_key="secret")
    with pytest.raises(InputError, match="not set"):
        ServeSettings(api_key="env:NOT_THERE").key()


def test_the_document_names_every_path_that_is_answered():
    async def main() -> set[str]:
        controller = controller_over([0.0])
        controller.deployment = msgspec.structs.replace(controller.deployment, host="127.0.0.1")
        runner, _ = await open_endpoint(controller)
        found = {r.resource.canonical for r in runner.app.router.routes() if r.resource}
        await runner.cleanup()
        return {path for path in found if "/versions/" not in path}

    described = document()
    assert asyncio.run(main()) == set(described["paths"])
    schema = described["components"]["schemas"]
    assert set(schema["Inference"]["properties"]) == {"inputs", "outputs", "id", "parameters"}
    assert json.loads(json.dumps(described)) == described


def test_a_port_in_use_is_told_before_anything_is_made():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        experiment = with_field(serve(), "serve.port", taken.getsockname()[1])
        with pytest.raises(InputError, match=r"serve\.port .*in use.*serve\.port=PORT"):
            prepare(Case(verb="run", experiment=experiment), Ask(folder=None))
