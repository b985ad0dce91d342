"""Helix: serving one large model over heterogeneous GPUs and networks by max-flow placement.

After Y. Mei et al., *Helix: Serving Large Language Models over Heterogeneous GPUs and Network via
Max-Flow*, ASPLOS 2025 (arXiv 2406.01566). Every machine holds a run of consecutive layers; which
tokens pass where is a maximum flow from the coordinator through the machines back to it. A
placement is judged by that flow and, better, by simulating the service request by request.

`helix.load("my.toml")`, `helix.plan(experiment)`, `helix.simulate(experiment, plan)`; read
`inputs`, `plan`, `simulate`, `run`, then `paper`, which reproduces the paper by them.
"""

from typing import TYPE_CHECKING

from common.library import Library, callable_rooms

if TYPE_CHECKING:
    from helix.inputs.experiment import Experiment
    from helix.plan.plans import Plan

_library: "Library[Experiment, Plan]" = Library(__name__)
load, experiments, profile = _library.load, _library.experiments, _library.profile
if TYPE_CHECKING:
    plan, simulate, run = _library.plan, _library.simulate, _library.run
else:
    callable_rooms(_library)

__all__ = ["experiments", "load", "plan", "profile", "run", "simulate"]
