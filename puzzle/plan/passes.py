"""Schedules as data: what each rank of a pipeline does, in order, for one batch of two models."""

from typing import Literal, NamedTuple

import msgspec

Kind = Literal["F", "B", "R", "N", "U"]
"""F forward, B backward; R start summing gradients over replicas, N start summing the gradient's
norm over the model's ranks, U clip and update. R, N and U are once per model and rank."""

ModelName = Literal["actor", "critic", "reference", "reward"]
ScheduleName = Literal["sequential", "merged", "fused"]


class Pass(NamedTuple):
    """One piece of work of one rank on one micro-batch of one model."""

    kind: Kind
    model: ModelName
    batch: int = 0

    def __str__(self) -> str:
        return f"{self.kind}{self.model[0]}{self.batch if self.kind in 'FB' else ''}"


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every rank's program. `reversed`: models whose first stage is on the last rank."""

    name: str
    stages: int
    batches: int
    models: tuple[ModelName, ...]
    reversed: tuple[ModelName, ...] = ()
    programs: tuple[tuple[Pass, ...], ...]

    def rank(self, model: str, stage: int) -> int:
        """Return the pipeline rank that holds a model's stage."""
        return self.stages - 1 - stage if model in self.reversed else stage

    def stage(self, model: str, rank: int) -> int:
        """Return the stage of a model on a pipeline rank: `rank` turned round."""
        return self.rank(model, rank)

    def needs(self, rank: int, item: Pass) -> list[tuple[int, Pass]]:
        """Return which passes must be over before a pass: (rank, pass)."""
        stage, last = self.stage(item.model, rank), self.stages - 1
        if item.kind == "F":
            return [(self.rank(item.model, stage - 1), item)] if stage else []
        if item.kind == "B":
            own = (rank, Pass("F", item.model, item.batch))
            after = [] if stage == last else [(self.rank(item.model, stage + 1), item)]
            return [own, *after]
        if item.kind == "U":  # the norm is a sum over all stages
            return [(other, Pass("N", item.model)) for other in range(self.stages)]
        if item.kind == "N":
            return [(rank, Pass("R", item.model))]
        return [(rank, Pass("B", item.model, batch)) for batch in range(self.batches)]
