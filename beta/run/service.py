"""Start the service on Ray, and end it: no process is left behind."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray
from aiohttp import web
from ray.exceptions import RayError

from beta.run.books import Totals
from beta.run.controller import Controller
from beta.run.endpoint import open_endpoint
from beta.run.specs import Deployment
from common.errors import CaseError
from common.spread import start_ray

STORE_BYTES = 100 * 2**20
"""Of Ray's object store: requests and answers are small, activations do not go through it."""
START_S = 600.0
PATIENT = {
    "prestart_worker_first_driver": False,
    "worker_register_timeout_seconds": int(START_S),
    "health_check_failure_threshold": 60,
}
"""Of a Ray started here: no workers that wait for work, as every process is an actor; and what is
slow to start or to answer, on a machine that does other work, is not taken for dead (60 and 5 in
Ray's own settings). Processes that really die are noticed at once, by their connection."""


class Service(NamedTuple):
    """A service that runs."""

    url: str
    controller: Any
    """Handle of the Ray actor."""


class Front(Controller):
    """The controller with its HTTP endpoint: what becomes the Ray actor."""

    endpoint: web.AppRunner

    async def start(self) -> str:
        """Open the endpoint, which says that it is not ready, build all groups; return its URL."""
        self.endpoint, url = await open_endpoint(self)
        await self.build()
        return url

    async def end(self, seconds: float) -> Totals:
        """Drain for so many seconds at most, close the endpoint and return the books."""
        await self.drain(seconds)
        await self.endpoint.cleanup()
        return self.books.totals()


@contextmanager
def serving(deployment: Deployment, address: str) -> Generator[Service]:
    """Serve on a Ray cluster, or on one started here (`local`), for as long as the block lasts.

    Raises InputError where the cluster does not answer, CaseError where the service does not start.
    """
    _start_ray(address, sum(group.devices for group in deployment.groups))
    try:
        made: Any = ray.remote(Front).options(num_cpus=0, max_concurrency=100_000)
        controller = made.remote(deployment)
        try:
            url: Any = ray.get(controller.start.remote(), timeout=START_S)
        except RayError as error:
            raise CaseError(f"the service does not start: {_cause(error)}") from error
        yield Service(url, controller)
    finally:
        ray.shutdown()


def _start_ray(address: str, devices: int) -> None:
    """Start or reach Ray; one started here has as many logical CPUs as devices."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    here: dict[str, Any] = {
        "num_cpus": devices,
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
        "_system_config": PATIENT,
    }
    said = f"serve.ray={address}"
    start_ray(said, address=address, **(here if address == "local" else {}))


def _cause(error: BaseException) -> str:
    """Return the last line of what Ray says: the error itself, without its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__
