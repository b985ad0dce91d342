"""Puzzle: PPO alignment of language models with light-weight context switches.

A PPO step generates, scores and trains with four models on the same devices (Lei et al., USENIX ATC
2024). Between stages the actor's weights move to a layout that generates faster; the training
pipelines of actor and critic are merged into one.

`puzzle.load("my.toml")`, `puzzle.plan(experiment)`, `puzzle.simulate(experiment, plan)`; read
`inputs` (models, layouts, clusters, experiments), `plan` (layout switches, schedules, the planner),
`simulate` (closed form and timeline), `run` (real ranks), then `paper`, which reproduces the paper.
"""

from typing import TYPE_CHECKING

from common.library import Library, callable_rooms

if TYPE_CHECKING:
    from puzzle.inputs.experiment import Experiment
    from puzzle.plan.plans import Plan

_library: "Library[Experiment, Plan]" = Library(__name__)
load, experiments, profile = _library.load, _library.experiments, _library.profile
if TYPE_CHECKING:
    plan, simulate, run = _library.plan, _library.simulate, _library.run
else:
    callable_rooms(_library)

__all__ = ["experiments", "load", "plan", "profile", "run", "simulate"]
