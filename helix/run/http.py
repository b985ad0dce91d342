"""The service over HTTP: completions and chat as OpenAI has them, and what is known of the model.

`http_guard.py` is what every request passes, `http_admin.py` what operators ask.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from aiohttp import web

from common.errors import InputError
from helix.run.answers import Answer, best, together, usage
from helix.run.asks import (
    Prompt,
    asks_of,
    chat_prompt,
    checked_ids,
    completion_prompts,
    model_of,
)
from helix.run.forms import ChatForm, CompletionForm, Form
from helix.run.http_admin import Admin
from helix.run.http_guard import (
    MOST_BODY,
    body_of,
    cut,
    event_of,
    guard,
    json_of,
    name_response,
    unforeseen,
)
from helix.run.refusals import BadRequest
from helix.run.request import Ask, NotNow, Running
from helix.run.requests_schema import Chat, Completion, Detokenize, Tokenize, read
from helix.run.serving import Serving

TEXT_THREADS = 2  # for prompts: a long one must not hold up the tokens of all others

T = TypeVar("T")


class Api:
    """The handlers of one service."""

    def __init__(self, serving: Serving) -> None:
        """Answer for this service."""
        experiment = serving.deployment.experiment
        self.serving, self.head = serving, serving.head
        name = experiment.model.name or experiment.name
        self.model = model_of(name, serving.deployment.config, experiment.serve.weights)
        self.admin = Admin(serving, self.model)
        self._apart = ThreadPoolExecutor(TEXT_THREADS, "text")

    def app(self) -> web.Application:
        """Return the application."""
        checks = guard(self.serving.fault, self.serving.settings.key())
        app = web.Application(client_max_size=MOST_BODY, middlewares=[checks])
        app.on_response_prepare.append(name_response)
        app.on_cleanup.append(self._close)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/tokenize", self.tokenize)
        app.router.add_post("/detokenize", self.detokenize)
        self.admin.add_to(app.router)
        return app

    async def _close(self, _: web.Application) -> None:
        self._apart.shutdown(wait=False, cancel_futures=True)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Continue texts."""
        asked = read(await body_of(request), Completion)
        self._check_name(asked.model)
        prompts = await self._read(completion_prompts, asked, self.model)
        form = CompletionForm(asked, self.model.tokenizer)
        return await self._serve(request, asked, prompts, form)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Continue a conversation."""
        asked = read(await body_of(request), Chat)
        self._check_name(asked.model)
        prompts = [await self._read(chat_prompt, asked, self.model)]
        form = ChatForm(self.model.tokenizer, logprobs=bool(asked.logprobs))
        return await self._serve(request, asked, prompts, form)

    async def tokenize(self, request: web.Request) -> web.Response:
        """Return the tokens of a text or of a conversation."""
        asked, tokenizer = read(await body_of(request), Tokenize), self.model.tokenizer
        self._check_name(asked.model)
        if (asked.prompt is None) == (asked.messages is None):
            raise BadRequest("give either prompt or messages", param="prompt")
        if asked.prompt is None:
            ids = (await self._read(chat_prompt, asked, self.model)).ids
        else:
            encode = partial(tokenizer.encode, marks=asked.add_special_tokens)
            ids = await self._read(encode, asked.prompt)
        said = {"count": len(ids), "max_model_len": self.model.config.longest, "tokens": ids}
        if asked.return_token_strs:
            said["token_strs"] = [tokenizer.decode([i]) for i in ids]
        return json_of(said)

    async def detokenize(self, request: web.Request) -> web.Response:
        """Return the text of tokens."""
        asked = read(await body_of(request), Detokenize)
        self._check_name(asked.model)
        checked_ids(asked.tokens, self.model, "tokens")
        return json_of({"prompt": await self._read(self.model.tokenizer.decode, asked.tokens)})

    def _check_name(self, name: str) -> None:
        if name not in ("", self.model.name):
            why = f"there is no model {name[:80]!r}; this is {self.model.name!r}"
            raise BadRequest(why, 404, "model")

    async def _read(self, work: Callable[..., T], *of: Any) -> T:
        """Turn text into tokens, or back, away from the loop that everybody's tokens pass."""
        return await asyncio.get_running_loop().run_in_executor(self._apart, work, *of)

    async def _serve(
        self, request: web.Request, asked: Completion | Chat, prompts: Sequence[Prompt], form: Form
    ) -> web.StreamResponse:
        longest = self.model.config.longest
        room = min(longest, self.head.room() or longest)
        asks = asks_of(asked, prompts, self.model, self.head.books.sent, room)
        tokenizer, each = self.model.tokenizer, asked.candidates
        with self._submitted(asks) as running:
            answers = [
                Answer(i, prompts[i // each], one, asked, tokenizer)
                for i, one in enumerate(running)
            ]
            if asked.stream:
                return await self._streamed(request, asked, prompts, answers, form)
            async for _ in together(answers, self.head):
                pass
            choices = [form.whole(one) for one in best(answers, each, asked.n or 1)]
            named = self._named(form.prefix, form.whole_object, answers)
            return json_of({**named, "choices": choices, "usage": usage(answers, prompts)})

    @contextlib.contextmanager
    def _submitted(self, asks: Sequence[Ask]) -> Iterator[list[Running]]:
        """Have the head answer all asks or none; what is not over at the end is cancelled."""
        running = list[Running]()
        try:
            for ask in asks:
                running.append(self.head.submit(ask))
            yield running
        finally:
            for one in running:
                self.head.cancel(one)

    async def _streamed(
        self, request: web.Request, asked: Completion | Chat, prompts: Sequence[Prompt],
        answers: Sequence[Answer], form: Form,
    ) -> web.StreamResponse:  # fmt: skip
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        try:
            async for event in self._events(asked, prompts, answers, form):
                if not response.prepared:
                    await response.prepare(request)
                await response.write(event_of(event))
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        except (NotNow, ConnectionError) as error:
            if not response.prepared or isinstance(error, ConnectionError):
                raise
            await cut(request, response, error)
        except Exception as error:
            if not response.prepared:
                raise
            await cut(request, response, unforeseen(request, error, self.serving.fault))
        return response

    async def _events(
        self, asked: Completion | Chat, prompts: Sequence[Prompt], answers: Sequence[Answer],
        form: Form,
    ) -> AsyncIterator[dict[str, Any]]:  # fmt: skip
        named = self._named(form.prefix, form.event_object, answers)
        options = asked.stream_options
        always = options is not None and options.continuous_usage_stats
        async for answer, piece in together(answers, self.head):
            for choice in form.events(answer, piece):
                told = {"usage": usage(answers, prompts)} if always else {}
                yield {**named, "choices": [choice], **told}
        if options is not None and options.include_usage:
            yield {**named, "choices": [], "usage": usage(answers, prompts)}

    def _named(self, prefix: str, kind: str, answers: Sequence[Answer]) -> dict[str, Any]:
        return {
            "id": f"{prefix}-{answers[0].running.number}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model.name,
        }


@contextlib.asynccontextmanager
async def listening(serving: Serving, host: str, port: int) -> AsyncIterator[str]:
    """Answer HTTP within the block; gives the address."""
    runner = web.AppRunner(
        Api(serving).app(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=2.0,
        auto_decompress=False,
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
