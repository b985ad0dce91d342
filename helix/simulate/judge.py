"""The simulator as planning asks it: one number for a placement, or how services do."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.errors import CaseError
from helix.inputs.experiment import Experiment
from helix.inputs.traces import read_trace
from helix.plan.clock import NEVER
from helix.plan.plans import Service
from helix.plan.question import Question, Served
from helix.plan.search_problem import AZURE_CONVERSATION, RequestMix
from helix.simulate.asked import asked_of, longest
from helix.simulate.metrics import Outcome, pooled
from helix.simulate.service import system_of
from helix.simulate.simulate import simulate
from helix.simulate.switches import Switches, compat
from helix.simulate.system import Ints
from helix.simulate.workload import Workload, waiting

TUNING = 1
"""Added to the seed for the requests a search is judged by, so that results are held out."""


class Simulations:
    """Simulations of an experiment's services; may be asked from several threads."""

    def __init__(self, experiment: Experiment, question: Question, seed: int) -> None:
        """Begin; the verb simulate draws its requests by the same seed."""
        self._workload, self._question, self._seed = experiment.workload, question, seed

    @property
    def online(self) -> bool:
        """Whether requests arrive at their own times."""
        return self._workload.mode == "online"

    @property
    def mix(self) -> RequestMix:
        """The workload's requests on average: those of a trace, or the recorded ones."""
        if not (self.online and self._workload.trace):
            return AZURE_CONVERSATION
        arrivals = read_trace(Path(self._workload.trace)).arrivals
        inputs = np.array([one.input for one in arrivals] or [1], float)
        outputs = np.array([one.output for one in arrivals] or [1], float)
        return RequestMix(
            float(inputs.mean()), float((inputs * inputs).mean()), float(outputs.mean())
        )

    def offline(self, one: Service, draw: int, stop: Ints = NEVER) -> float:
        """Return the decode throughput with queries always waiting; NaN where it was cut short."""
        q = self._question
        outcome = simulate(
            system_of(one, q.cluster, q.model, q.profiles),
            waiting(self._workload),
            "maxflow",
            seed=self._seed + TUNING + draw,
            stop=stop,
        )
        if outcome.stopped_early:
            return float("nan")
        return 0.0 if outcome.overflowed else outcome.decode_tokens_per_s

    def own(self, services: Sequence[Service], draw: int, stop: Ints = NEVER) -> Served:
        """Return how services do under the experiment's own workload.

        Draw 0 is the one of the verb simulate. Services that refuse a request are not served.
        """
        q, seed = self._question, self._seed + draw
        limits = longest(services, q.cluster, q.model, q.profiles)
        asked = asked_of(self._workload, services, limits, seed)
        try:
            outcomes = [
                self._outcome(one, asked.workloads[one.name], seed, stop) for one in services
            ]
        except CaseError:
            return Served(0.0, np.inf, True)
        if any(outcome.stopped_early for outcome in outcomes):
            return Served(float("nan"), np.inf, False)
        rate, prompt_s, decode_s = pooled(outcomes)
        means = [float(part.mean()) if len(part) else np.inf for part in (prompt_s, decode_s)]
        mean_s = means[0] + self.mix.mean_output * means[1]
        return Served(rate, mean_s, any(outcome.overflowed for outcome in outcomes))

    def _outcome(self, one: Service, workload: Workload, seed: int, stop: Ints) -> Outcome:
        q, settings = self._question, self._workload
        return simulate(
            system_of(one, q.cluster, q.model, q.profiles),
            workload,
            settings.scheduler,
            switches=compat(settings.right) if settings.compat else Switches(),
            seed=seed,
            stop=stop,
        )
