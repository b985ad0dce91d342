"""A sweep: one experiment at many loads, seeds or settings, over processes or a Ray cluster."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from common.case import case_id, resolve
from common.errors import InputError
from common.log import progress
from common.record import Metric, Record
from helix import cases
from helix.inputs.experiment import Experiment
from helix.plan.plans import Plan

SEED = "seed"
CONNECT_S = 5.0


class Point(NamedTuple):
    """One combination of a sweep."""

    values: dict[str, Any]
    experiment: Experiment
    seed: int

    @property
    def config(self) -> dict[str, Any]:
        """What identifies its record."""
        return cases.config_of("simulate", self.experiment, self.seed)


class Simulated(NamedTuple):
    """What a worker returns of a point."""

    metrics: tuple[Metric, ...]
    started: str
    wall_s: float
    peak_rss: int


def points(experiment: Experiment, seed: int) -> list[Point]:
    """Return all combinations in the order of the fields."""
    names = list(experiment.sweep)
    for name, values in experiment.sweep.items():
        if not values:
            raise InputError(f"sweep: {name!r} has no values")
    found = list[Point]()
    for values in product(*experiment.sweep.values()):
        chosen = dict(zip(names, values, strict=True))
        fields = [f"{k}={_toml(v)}" for k, v in chosen.items() if k != SEED]
        name = experiment.name
        one = resolve(name, {name: experiment}, Experiment, ["sweep={}", *fields])
        own = chosen.get(SEED, seed)
        if type(own) is not int or own < 0:
            raise InputError(f"sweep: seed is {own!r}, expected whole numbers of 0 or more")
        found.append(Point(chosen, one, own))
    return found


def _toml(value: object) -> str:
    return msgspec.json.encode(value).decode()


def sweep(
    experiment: Experiment, folder: cases.Folder, seed: int, given: Path | None, ray: str | None
) -> list[tuple[Point, Record]]:
    """Simulate every point that has no record yet; return all with their records.

    Plans are made first, one after another, each on all cores; then points are spread.
    """
    wanted, file = points(experiment, seed), folder.records(cases.OWN)
    finished = file.finished()
    todo = [p for p in wanted if (experiment.name, case_id(p.config)) not in finished]
    work = [(p.experiment, cases.plan_for(p.experiment, folder, given, seed), p.seed) for p in todo]
    with progress(len(todo), f"sweep {experiment.name}") as advance, _spread(ray) as spread:
        for number, done in spread(work):
            file.append(_record(todo[number], done, folder))
            advance(1)
    records = {record.case_id: record for record in file.read() if record.status == "ok"}
    return [(point, records[case_id(point.config)]) for point in wanted]


def simulate_point(experiment: Experiment, plan: Plan, seed: int) -> Simulated:
    """Simulate one point; runs in a worker."""
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    done = cases.simulated(experiment, plan, seed)
    return Simulated(done.metrics, started, time.perf_counter() - clock, cases.peak_rss())


def _record(point: Point, done: Simulated, folder: cases.Folder) -> Record:
    config = point.config
    return cases.record_of(
        "simulate", point.experiment, folder, config=config, seed=point.seed, suite=cases.OWN,
        metrics=done.metrics, started=done.started, wall_s=done.wall_s, peak_rss=done.peak_rss,
    )  # fmt: skip


Work = Sequence[tuple[Experiment, Plan, int]]
Spread = Callable[[Work], Iterator[tuple[int, Simulated]]]


@contextmanager
def _spread(address: str | None) -> Iterator[Spread]:
    """Yield what does the work and yields results with their numbers as they come."""
    if address is not None:
        with _on_ray(address) as spread:
            yield spread
        return
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:

        def over_processes(work: Work) -> Iterator[tuple[int, Simulated]]:
            numbers = {pool.submit(simulate_point, *one): i for i, one in enumerate(work)}
            for future in as_completed(numbers):
                yield numbers[future], future.result()

        try:
            yield over_processes
        finally:
            pool.shutdown(cancel_futures=True)


def _no_cluster(address: str) -> InputError:
    return InputError(
        f"--ray {address}: no Ray cluster answers there; start one with 'ray start --head', or"
        " leave --ray out"
    )


def _check_answers(address: str) -> None:
    """Refuse an address that nobody listens at: Ray itself would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdigit():  # auto, local
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise _no_cluster(address) from error


@contextmanager
def _on_ray(address: str) -> Iterator[Spread]:
    import ray

    import common
    import helix

    _check_answers(address)
    modules = [str(Path(str(module.__file__)).parent) for module in (common, helix)]
    try:
        ray.init(
            address=address,
            runtime_env={"py_modules": modules},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except ConnectionError as error:
        raise _no_cluster(address) from error
    remote = ray.remote(num_cpus=1)(simulate_point)

    def over_ray(work: Work) -> Iterator[tuple[int, Simulated]]:
        numbers = {remote.remote(*one): i for i, one in enumerate(work)}
        left = list(numbers)
        while left:
            (ready,), left = ray.wait(left, num_returns=1)
            yield numbers[ready], ray.get(ready)

    try:
        yield over_ray
    finally:
        ray.shutdown()
