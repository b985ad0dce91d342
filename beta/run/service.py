"""Start the service on Ray, and end it: no process is left behind."""

import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from beta.run.controller import Controller
from beta.run.specs import Deployment
from common.errors import InputError

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


@contextmanager
def serving(deployment: Deployment, address: str) -> Generator[Service]:
    """Serve on a Ray cluster, or on one started here (`local`), for as long as the block lasts.

    Raises InputError where the cluster does not answer or is too small.
    """
    _start_ray(address, sum(group.devices for group in deployment.groups))
    try:
        made: Any = ray.remote(Controller).options(num_cpus=0, max_concurrency=100_000)
        controller = made.remote(deployment)
        try:
            url: Any = ray.get(controller.start.remote(), timeout=START_S)
        except RayError as error:
            raise InputError(f"the service does not start: {_cause(error)}") from error
        yield Service(url, controller)
    finally:
        ray.shutdown()


def _start_ray(address: str, devices: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local":
        _start_local(devices)
        return
    try:
        _reach(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        raise InputError(f"serve.ray={address}: no cluster answers: {error}") from error


def _start_local(devices: int) -> None:
    """Start Ray here; on a machine that is kept from it by other work, try a second time.

    As many logical CPUs as devices, however many cores there are.
    """
    for attempt in (1, 2):
        try:
            ray.init(
                num_cpus=devices,
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _system_config=PATIENT,
            )
        except Exception as error:  # Ray gives up after 30 s with a plain Exception
            ray.shutdown()
            if attempt == 2:
                raise InputError(f"Ray does not start on this machine: {_cause(error)}") from error
        else:
            return


def _reach(address: str) -> None:
    """Raise OSError if nothing listens at host:port; Ray itself would end this process."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=5).close()


def _cause(error: BaseException) -> str:
    """Return the last line of what Ray says: the error itself, without its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__
