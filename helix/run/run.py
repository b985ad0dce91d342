"""The verb `run`: serve a plan, to clients or under the experiment's own workload."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from helix.inputs.experiment import Experiment
from helix.plan.plans import Plan
from helix.run.clients import serve_clients
from helix.run.deploy import Deployment
from helix.run.drive import Measured, drive
from helix.run.request import Books
from helix.run.serving import served
from helix.run.trace import write_run
from helix.run.worker import Facts

log = logging.getLogger("helix")


class Ran(NamedTuple):
    """What a run did: by service what was measured, the books, and the workers at the end."""

    measured: dict[str, Measured]
    books: Books
    facts: Sequence[Facts]
    events: Sequence[tuple[float, str]]


def run(experiment: Experiment, plan: Plan, seed: int, trace: Path | None) -> Ran:
    """Serve; `trace` is the file for what happened when, if the experiment wants it."""
    return asyncio.run(_run(Deployment(experiment, plan, seed), seed, trace))


async def _run(deployment: Deployment, seed: int, trace: Path | None) -> Ran:
    if deployment.experiment.serve.load == "clients":
        serving = await serve_clients(deployment, trace)
        return Ran({}, serving.head.books, (), serving.events)
    async with served(deployment) as serving:
        measured = await drive(serving, seed)
        await asyncio.sleep(0.5)  # the last frees arrive
        facts = await serving.fleet.facts()
        books = msgspec.structs.replace(serving.head.books)
        if trace and deployment.experiment.serve.trace:
            await write_run(trace, serving)
        return Ran(measured, books, facts, tuple(serving.events))
