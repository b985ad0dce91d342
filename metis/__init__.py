"""Metis: the best parallel training plan for a cluster of heterogeneous GPUs.

`metis.load("my.toml")`, `metis.plan(experiment)`, `metis.simulate(experiment, plan)`. Read
`inputs`, `plan`, `simulate`, `run`, then `paper`, which reproduces the paper by them.
"""

from typing import TYPE_CHECKING

from common.library import Library, callable_rooms

if TYPE_CHECKING:
    from metis.inputs.experiment import Experiment
    from metis.plan.plans import Plan

_library: "Library[Experiment, Plan]" = Library(__name__)
load, experiments, profile = _library.load, _library.experiments, _library.profile
if TYPE_CHECKING:
    plan, simulate, run = _library.plan, _library.simulate, _library.run
else:
    callable_rooms(_library)

__all__ = ["experiments", "load", "plan", "profile", "run", "simulate"]
