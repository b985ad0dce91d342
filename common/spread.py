"""Spread independent work over this machine's cores or a Ray cluster; start Ray patiently."""

import importlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from common.errors import CaseError, InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
CONNECT_S = 5.0
PATIENCE = {  # Ray's own limits, raised for a machine that is busy
    "RAY_gcs_server_port_wait_time_s": "180",
    "RAY_gcs_server_request_timeout_seconds": "180",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_failure_threshold": "60",
}
TRIED = "; once more with its limits raised"
_log = logging.getLogger(__name__)


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    processes: int,
    ray: str = "",
    packages: Sequence[str] = (),
) -> Iterator[tuple[int, Result | BaseException]]:
    """Yield each task's number with its result, or what ended its worker, as they are ready.

    `work` must be importable. Leaving early ends the workers. `ray` is "local" (started here),
    "auto", host:port or ray://host:port of a cluster, which gets a copy of the `packages`.
    """
    if not tasks:
        return
    if ray:
        yield from _over_ray(work, tasks, ray, packages)
        return
    # Ctrl-C is left to the process that collects results; it ends the workers.
    deaf, context = (signal.SIGINT, signal.SIG_IGN), get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(tasks)), context, signal.signal, deaf)
    finished = False
    try:
        waiting = {pool.submit(work, task): number for number, task in enumerate(tasks)}
        broken = list[int]()
        for done in as_completed(waiting):
            error = done.exception()
            if isinstance(error, BrokenProcessPool) and len(tasks) > 1:
                broken.append(waiting[done])
            else:
                yield waiting[done], error or done.result()
        for number in broken:  # one by one: only the task that ends its worker is to blame
            for _, result in spread(work, [tasks[number]], processes=1):
                yield number, result
        finished = True
    finally:
        for process in list((pool._processes or {}).values()) if not finished else ():
            process.terminate()
        pool.shutdown(wait=finished, cancel_futures=True)


def _over_ray(
    work: Callable[[Task], Result], tasks: Sequence[Task], address: str, packages: Sequence[str]
) -> Iterator[tuple[int, Result | BaseException]]:
    folders = [str(Path(str(importlib.import_module(name).__file__)).parent) for name in packages]
    ray = start_ray(f"--ray {address}", address=address, runtime_env={"py_modules": folders})
    try:
        remote = ray.remote(num_cpus=1)(work)
        waiting = {remote.remote(task): number for number, task in enumerate(tasks)}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            number, result = waiting.pop(done), None
            try:
                result = ray.get(done)
            except ray.exceptions.RayError as error:
                result = error
            yield number, result
    finally:
        ray.shutdown()


def start_ray(said: str, *, address: str, **settings: Any) -> Any:
    """Start or reach Ray and return the module; a start here that fails is tried once more.

    `said` is how the user named the address, for the error. Raises InputError where no cluster
    answers and CaseError where Ray does not start on this machine.
    """
    ray: Any = importlib.import_module("ray")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != "local":
        try:
            _reach(address)
            ray.init(address=address, **quiet, **settings)
        except (ConnectionError, OSError, ValueError) as error:
            raise InputError(
                f"{said}: no Ray cluster answers there ({error}); start one with 'ray start"
                " --head', or leave the address out"
            ) from error
        return ray
    line = ""
    for limits in ({}, PATIENCE):
        os.environ.update(limits)
        try:
            ray.init(address="local", **quiet, **settings)
        except Exception as error:  # Ray raises a bare Exception for a slow start
            ray.shutdown()
            line = " ".join(str(error).split())[:300]
            _log.warning("Ray did not start (%s)%s", line, "" if limits else TRIED)
        else:
            return ray
    raise CaseError(f"Ray did not start on this machine, twice: {line}")


def _reach(address: str) -> None:
    """Raise OSError if nothing listens at host:port; Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
