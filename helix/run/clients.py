"""Serving clients until a signal: the first one drains, a second one ends at once."""

import asyncio
import logging
import signal
from pathlib import Path

from helix.run.deploy import Deployment
from helix.run.http import listening
from helix.run.serving import Serving
from helix.run.trace import write_run

log = logging.getLogger("helix")

ENDPOINTS = "/v1/chat/completions, /v1/completions, /health, /metrics, /openapi.json"


async def serve_clients(deployment: Deployment, trace: Path | None) -> Serving:
    """Serve over HTTP until SIGTERM or SIGINT; return the service as it ended.

    `trace` is written at the end if the experiment wants one.
    """
    serve, serving = deployment.experiment.serve, Serving(deployment)
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def signalled() -> None:
        if asked.is_set():
            serving.head.end_all("the service was shut down")
        asked.set()

    def listen() -> None:
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, signalled)

    listen()
    try:
        opening = asyncio.ensure_future(serving.open())
        waiting = asyncio.ensure_future(asked.wait())
        await asyncio.wait((opening, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            opening.cancel()
            return serving
        opening.result()
        listen()  # Ray has put its own handlers in their place
        async with listening(serving, serve.host, serve.port) as address:
            print(f"serving at {address} ({ENDPOINTS})", flush=True)
            await waiting
            log.info("draining: %d requests at work", serving.head.books.open())
            await serving.drain(serve.drain_s)
            if trace and serve.trace:
                await write_run(trace, serving)
    finally:
        await serving.close()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(one)
    return serving
