"""What every rank of a run is told, and what a run hands back: values without torch."""

from statistics import median
from typing import NamedTuple

import msgspec

from common.ranks import Backend
from vocab_parallel.inputs.experiment import Training
from vocab_parallel.plan.plans import Plan


class Job(NamedTuple):
    """What every rank of a run is told."""

    plan: Plan
    training: Training
    seed: int
    backend: Backend

    @property
    def world(self) -> int:
        """Ranks: pipeline positions x ranks of each x replicas."""
        return self.plan.schedule.ranks * self.plan.tensor * self.training.data_parallel


class RankFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's medians over the steps after the first, in seconds, and its peak memory."""

    passes: dict[str, float]
    """Computing time of one pass by kind and chunk ("S0")."""
    busy_s: float
    """All passes of an iteration together."""
    update_s: float
    peak_bytes: int | None
    """Allocated at the peak, CUDA only."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measured; lists have an entry per step."""

    experiment: str
    method: str
    backend: str
    device: str
    dtype: str
    world_size: int
    seed: int
    first_step: int
    """Above 0 where the run went on from a checkpoint."""
    passed_over: tuple[str, ...] = ()
    """Why later checkpoints than that were not taken."""
    losses: tuple[float, ...]
    """Mean cross entropy over the global batch before each step, in nat."""
    gradient_norms: tuple[float, ...]
    iteration_s: tuple[float, ...]
    """Of the slowest rank; the first step warms up."""
    evaluation: float | None
    """Mean loss of a batch not trained on, after the last step."""
    numerics: dict[str, float] = {}
    """Errors of the sharded output layer on these ranks against one process (`run/selfcheck`)."""
    ranks: tuple[RankFigures, ...]

    @property
    def median_iteration_s(self) -> float:
        """Median over the steps after the first."""
        return median(self.iteration_s[1:] or self.iteration_s)
