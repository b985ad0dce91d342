"""Beta: AlpaServe (OSDI '23), many models on few devices, shared by model parallelism.

`beta.load("my.toml")`, `beta.plan(experiment)`, `beta.simulate(experiment, plan)`; read `inputs`,
`plan`, `simulate`, `run`, then `paper`, which reproduces the paper by them. The idea: two models
that share two devices as one pipeline can each use both devices in a burst, where two replicas on
one device each cannot.
"""

from typing import TYPE_CHECKING

from common.library import Library, callable_rooms

if TYPE_CHECKING:
    from beta.inputs.experiment import Experiment
    from beta.plan.plans import Plan

_library: "Library[Experiment, Plan]" = Library(__name__)
load, experiments, profile = _library.load, _library.experiments, _library.profile
if TYPE_CHECKING:
    plan, simulate, run = _library.plan, _library.simulate, _library.run
else:
    callable_rooms(_library)

__all__ = ["experiments", "load", "plan", "profile", "run", "simulate"]
