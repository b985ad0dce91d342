"""The service over HTTP without Ray, in a thread of its own: one for all tests of a module."""

import asyncio
import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from helix.inputs.experiment import Experiment
from helix.run.http import listening
from helix.run.serving import Serving
from tests.helix.local_fleet import LocalFleet, local, plan, settled

T = TypeVar("T")
ANSWER_S = 60.0


class Said(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class LocalService:
    """A service that runs; everything of it is called in its own loop."""

    def __init__(self, serving: Serving, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.serving, self.url, self.loop = serving, url, loop
        self.expected = ""
        """The greedy answer of 12 tokens to `Hello`."""
        self.long: tuple[int, ...] = ()
        """The tokens of a longer one."""

    @property
    def fleet(self) -> LocalFleet:
        assert isinstance(self.serving.fleet, LocalFleet)
        return self.serving.fleet

    def call(self, work: Callable[[], T]) -> T:
        async def called() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(ANSWER_S)

    def ask(self, path: str, body: Any = None, **headers: str) -> Said:
        """GET, or POST a body: bytes as they are, anything else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return Said(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Said(error.code, dict(error.headers), error.read())

    def completion(self, **body: Any) -> Any:
        said = self.ask("/v1/completions", {"prompt": "Hello", "temperature": 0, **body})
        assert said.status == 200, said
        return said.json

    def text(self, **body: Any) -> str:
        return self.completion(**body)["choices"][0]["text"]

    def health(self) -> dict[str, Any]:
        return self.ask("/health").json

    def wait_for(self, true: Callable[[], Any], seconds: float = 30.0) -> None:
        until = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < until, self.health()
            time.sleep(0.02)

    def settled(self) -> bool:
        """Whether nothing is at work and no cache holds anything."""
        found = asyncio.run_coroutine_threadsafe(settled(self.serving), self.loop)
        books = self.serving.head.books
        return books.open() == 0 and not any(f.blocks_used for f in found.result(ANSWER_S))


@contextlib.contextmanager
def running(asked: Experiment, runs: tuple[tuple[int, int], ...]) -> Iterator[LocalService]:
    """A service of this placement."""
    ready, over = Future[LocalService](), asyncio.Event()

    async def main() -> None:
        try:
            async with (
                local(asked, plan(asked, runs)) as serving,
                listening(serving, "127.0.0.1", 0) as url,
            ):
                ready.set_result(LocalService(serving, url, asyncio.get_running_loop()))
                await over.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    service = ready.result(ANSWER_S)
    try:
        yield service
    finally:
        service.loop.call_soon_threadsafe(over.set)
        thread.join(ANSWER_S)
