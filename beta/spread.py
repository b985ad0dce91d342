"""Spread independent work over this machine's cores; results come as they are ready."""

import importlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

from common.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def spread(
    work: Callable[[Task], Result], tasks: Sequence[Task], processes: int
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with its result; with one process, in order and in this one.

    `work` must be importable. Leaving early ends the workers.
    """
    if processes <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield task, work(task)
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_ignore_interrupts)
    finished = False
    try:
        waiting = {pool.submit(work, task): task for task in tasks}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
        finished = True
    finally:
        if not finished:
            _end(pool)
        pool.shutdown(wait=finished, cancel_futures=True)


def spread_on_ray(
    work: Callable[[Task], Result], tasks: Sequence[Task], address: str
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with its result, done on a Ray cluster that has this package installed.

    `address` is "local" (started here), "auto", host:port or ray://host:port.
    """
    try:
        _reach(address)
        ray: Any = importlib.import_module("ray")
        ray.init(None if address == "local" else address, log_to_driver=False)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"ray={address}: no cluster answers: {error}") from error
    try:
        remote = ray.remote(num_cpus=1)(work)
        waiting = {remote.remote(task): task for task in tasks}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            for reference in done:
                yield waiting.pop(reference), ray.get(reference)
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError if nothing listens at host:port; Ray itself would end this process."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=5).close()


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that collects results; it ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.terminate()
