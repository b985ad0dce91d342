"""Serving clients until a signal: the first one drains, a second one ends at once."""

import asyncio
import logging
import signal

from helix.run.deploy import Deployment
from helix.run.http import listening
from helix.run.serving import Serving

log = logging.getLogger("helix")


async def serve_clients(deployment: Deployment) -> Serving:
    """Serve over HTTP until SIGTERM or SIGINT; return the service as it ended."""
    serve, serving = deployment.experiment.serve, Serving(deployment)
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def signalled() -> None:
        if asked.is_set():
            serving.head.end_all("the service was shut down")
        asked.set()

    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, signalled)
    try:
        opening = asyncio.ensure_future(serving.open())
        waiting = asyncio.ensure_future(asked.wait())
        await asyncio.wait((opening, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            opening.cancel()
            return serving
        opening.result()
        async with listening(serving, serve.host, serve.port) as address:
            print(f"serving at {address} (POST /v1/completions, GET /health, /metrics)", flush=True)
            await waiting
            log.info("draining: %d requests at work", serving.head.books.open())
            await serving.drain(serve.drain_s)
    finally:
        await serving.close()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(one)
    return serving
