"""What ranks do to count where the host would wait for the device."""

from contextlib import nullcontext
from typing import Any

from puzzle.plan.passes import Pass
from puzzle.run import executor
from puzzle.run.generate import Answers, Generator, Prompts
from puzzle.run.readers import readers_of
from puzzle.run.settings import Job
from puzzle.run.train import Trainer
from tests.ordered.host_waits import HostWaits
from tests.puzzle.rank_tasks import CPU


def host_waits(rank: int, report: object, jobs: list[Job]) -> list[dict[str, int]]:
    """Return per job what reads a tensor on the host in generation and in passes, of two steps.

    Updates are left out: each reads its norm once, which decides whether there is one.
    """
    found: list[dict[str, int]] = []
    generate, passed = Generator.run, executor._Runner.run
    for job in jobs:
        mode = HostWaits()

        def run(self: Generator, prompts: Prompts, mode: HostWaits = mode) -> Answers:
            with mode:
                return generate(self, prompts)

        def one(self: Any, item: Pass, mode: HostWaits = mode) -> None:
            with nullcontext() if item.kind == "U" else mode:
                passed(self, item)

        Generator.run, executor._Runner.run = run, one
        try:
            trainer = Trainer(job, CPU, readers_of(job))
            for number in range(2):
                trainer.step(number)
        finally:
            Generator.run, executor._Runner.run = generate, passed
        trainer.close()
        found.append(dict(mode.found))
    return found
