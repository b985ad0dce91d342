"""Vocabulary Parallelism: pipelines in which no stage is the bottleneck of a large vocabulary.

The input and output matrices are cut by rows over all pipeline ranks, and the output layer becomes
two passes, S and T, that every rank runs per micro-batch like any other (Yeung et al., MLSys 2025).

`vocab_parallel.load("my.toml")`, `vocab_parallel.plan(experiment)`, `vocab_parallel.simulate(...)`;
read `inputs` (model, machine, experiment), `plan` (schedules as data, their checker), `simulate`
(time and memory of a schedule), `run` (real ranks), then `paper`, which reproduces the paper by
them.
"""

from typing import TYPE_CHECKING

from common.library import Library, callable_rooms

if TYPE_CHECKING:
    from vocab_parallel.inputs.experiment import Experiment
    from vocab_parallel.plan.plans import Plan

_library: "Library[Experiment, Plan]" = Library(__name__)
load, experiments, profile = _library.load, _library.experiments, _library.profile
if TYPE_CHECKING:
    plan, simulate, run = _library.plan, _library.simulate, _library.run
else:
    callable_rooms(_library)

__all__ = ["experiments", "load", "plan", "profile", "run", "simulate"]
