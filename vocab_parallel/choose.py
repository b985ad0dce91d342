"""Which method to use: all of them planned and predicted, the fastest that fits taken."""

from typing import NamedTuple

from common.errors import InputError
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.plan.methods import METHODS
from vocab_parallel.plan.plans import Plan, make_plan
from vocab_parallel.simulate.memory import GIB
from vocab_parallel.simulate.predict import Prediction, predict


class Choice(NamedTuple):
    """One method for an experiment; `why_not` says why it has no plan."""

    method: str
    plan: Plan | None
    prediction: Prediction | None
    why_not: str = ""

    def fits(self) -> bool:
        """Say whether every rank's reserved memory is within the device's."""
        if self.plan is None or self.prediction is None:
            return False
        return max(self.prediction.reserved) <= self.plan.machine.memory_gib * GIB


def compare(experiment: Experiment) -> list[Choice]:
    """Return every method's plan and prediction, fastest first; those without a plan last."""
    choices = [_choice(experiment, method) for method in METHODS]
    return sorted(choices, key=lambda c: c.prediction.iteration_s if c.prediction else float("inf"))


def choose(experiment: Experiment, choices: list[Choice]) -> Choice:
    """Return the fastest that fits; refuses an experiment for which none does."""
    for choice in choices:
        if choice.fits():
            return choice
    needed = [max(c.prediction.reserved) / GIB for c in choices if c.prediction]
    if not needed:
        raise InputError(f"{experiment.name}: no method has a plan: {choices[0].why_not}")
    raise InputError(
        f"{experiment.name}: no method fits into {experiment.device.memory_gib:g} GiB (the smallest"
        f" needs {min(needed):.1f}); use more pipeline.ranks or a smaller model"
    )


def _choice(experiment: Experiment, method: str) -> Choice:
    try:
        plan = make_plan(experiment, method)
    except InputError as error:
        return Choice(method, None, None, str(error))
    return Choice(method, plan, predict(plan))
