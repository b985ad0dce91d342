"""The service over HTTP: /v1/completions and /v1/models as OpenAI has them, /health, /metrics."""

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from common.errors import InputError
from helix.run.completions import BadRequest, Completion, StopAt, ask_of, read, refusal
from helix.run.head import Ask, Done, NotNow, Running
from helix.run.metrics import Metrics
from helix.run.serving import Serving
from helix.run.tokens import Unfolding, tokenizer_of

MOST_BODY = 4 << 20  # bytes


class Api:
    """The handlers of one service."""

    def __init__(self, serving: Serving) -> None:
        """Answer for this service."""
        deployment = serving.deployment
        self.serving, self.config = serving, deployment.config
        self.model = deployment.experiment.model.name or deployment.experiment.name
        self.tokenizer = tokenizer_of(deployment.experiment.serve.weights)
        self.metrics = Metrics(serving)
        self.began = int(time.time())

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=MOST_BODY, middlewares=[_errors])
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.prometheus)
        return app

    async def models(self, _: web.Request) -> web.Response:
        """Name the one model."""
        mine = {"id": self.model, "object": "model", "created": self.began, "owned_by": "helix"}
        return _json({"object": "list", "data": [mine]})

    async def health(self, _: web.Request) -> web.Response:
        """Say whether requests can be served, and with which machines."""
        serving, books = self.serving, self.serving.head.books
        state = "ok" if serving.ready else "down"
        said = {
            "status": "draining" if serving.head.closing else state,
            "machines": {str(m): one.pid for m, one in sorted(serving.fleet.workers.items())},
            "lost": sorted(serving.gone),
            "services": [one.name for one in serving.services],
            "running": len(serving.head.running),
            "waiting": len(serving.head.waiting),
            "books": books,
        }
        return _json(said, 200 if serving.ready else 503)

    async def prometheus(self, _: web.Request) -> web.Response:
        """Return the metrics in Prometheus' text format."""
        text, kind = await self.metrics.page()
        return web.Response(body=text, headers={"Content-Type": kind})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Serve a completion, streamed or whole."""
        asked = read(await request.read(), self.model)
        head = self.serving.head
        ask = ask_of(
            asked, self.tokenizer, self.config.vocabulary, self.config.ends, head.books.sent
        )
        running = head.submit(ask)
        try:
            if asked.stream:
                return await self._streamed(request, asked, ask, running)
            return await self._whole(asked, ask, running)
        finally:
            head.cancel(running)  # if the client is gone; otherwise it is over

    async def _whole(self, asked: Completion, ask: Ask, running: Running) -> web.Response:
        parts, reason = list[str](), ""
        async for text, done in self._texts(asked, running):
            parts.append(text)
            if done is not None:
                if done.error is not None:
                    raise done.error
                reason = done.reason
        choice = {"index": 0, "text": "".join(parts), "logprobs": None, "finish_reason": reason}
        return _json({**self._named(running), "choices": [choice], "usage": _usage(ask, running)})

    async def _streamed(
        self, request: web.Request, asked: Completion, ask: Ask, running: Running
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        named, usage = self._named(running), asked.stream_options
        with_usage = usage is not None and usage.include_usage
        async for text, done in self._texts(asked, running):
            if done is not None and done.error is not None:
                if not response.prepared:
                    raise done.error
                await response.write(_event(refusal(done.error)))
                break
            if not response.prepared:
                await response.prepare(request)
            reason = done.reason if done is not None else None
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
            if text or done is not None:
                await response.write(_event({**named, "choices": [choice]}))
        else:
            if with_usage:
                await response.write(
                    _event({**named, "choices": [], "usage": _usage(ask, running)})
                )
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _texts(
        self, asked: Completion, running: Running
    ) -> AsyncIterator[tuple[str, Done | None]]:
        """Yield pieces of the answer's text; the last comes with how it ended."""
        unfolding, stop = Unfolding(self.tokenizer), StopAt(asked.stops)
        while True:
            one = await running.out.get()
            if isinstance(one, Done):
                rest = "" if stop.found else stop.add(unfolding.rest()) + stop.rest()
                yield rest, one
                return
            if one.id in running.ask.ends:
                continue
            text = stop.add(unfolding.add(one.id))
            if stop.found:
                self.serving.head.finish(running, "stop")
                yield text, Done("stop")
                return
            yield text, None

    def _named(self, running: Running) -> dict[str, Any]:
        return {
            "id": f"cmpl-{running.number}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.model,
        }


def _usage(ask: Ask, running: Running) -> dict[str, int]:
    prompt, answer = len(ask.ids), len(running.tokens)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }


def _json(value: object, status: int = 200) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")


def _event(value: object) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer refusals with their status and one sentence."""
    try:
        return await handler(request)
    except (BadRequest, NotNow) as error:
        return _json(refusal(error), error.status)
    except web.HTTPException as error:
        why = f"{request.method} {request.path}: {error.reason}"
        return _json(refusal(BadRequest(why, error.status)), error.status)


@contextlib.asynccontextmanager
async def listening(serving: Serving, host: str, port: int) -> AsyncIterator[str]:
    """Answer HTTP within the block; gives the address."""
    runner = web.AppRunner(
        Api(serving).app(), access_log=None, handler_cancellation=True, shutdown_timeout=2.0
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    bound = runner.addresses[0]
    try:
        yield f"http://{bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()
