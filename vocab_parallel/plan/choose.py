"""Which method to use: all of them planned and predicted, the fastest that fits taken.

A winner is told with those that the model's error cannot tell it apart from (`bands`), with the one
of least memory among them, and with how much slower than another it may be at most.
"""

from typing import NamedTuple

from common.artifact import with_field
from common.errors import CaseError, InputError
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.plan.bands import band
from vocab_parallel.plan.methods import METHODS
from vocab_parallel.plan.plans import USUAL_VIRTUAL, Plan, make_plan
from vocab_parallel.simulate.memory import GIB, needed
from vocab_parallel.simulate.predict import Prediction, predict

MOST_VIRTUAL = 8
"""Virtual stages of a rank that are tried at most."""


class Choice(NamedTuple):
    """One method for an experiment; `why_not` says why it has no plan."""

    method: str
    plan: Plan | None
    prediction: Prediction | None
    why_not: str = ""

    def fits(self) -> bool:
        """Say whether every rank's tensors and the machine's reserve are within its memory."""
        if self.plan is None or self.prediction is None:
            return False
        return max(self.prediction.needed) <= self.plan.machine.memory_gib * GIB

    def range_s(self) -> tuple[float, float]:
        """Return the least and greatest iteration time within the method's error band."""
        assert self.plan is not None
        assert self.prediction is not None
        seconds, error = self.prediction.iteration_s, band(self.plan).time
        return seconds / (1 + error), seconds / (1 - error)


def compare(experiment: Experiment) -> list[Choice]:
    """Return every method's plan and prediction, fastest first; those without a plan last."""
    choices = [_choice(experiment, method) for method in METHODS]
    return sorted(choices, key=_seconds)


def choose(experiment: Experiment, choices: list[Choice]) -> tuple[Plan, Prediction]:
    """Return the fastest that fits; raises InputError without any plan, CaseError if none fits."""
    for choice in choices:
        if choice.plan and choice.prediction and choice.fits():
            return choice.plan, choice.prediction
    sizes = [max(c.prediction.needed) / GIB for c in choices if c.prediction]
    if not sizes:
        raise InputError(f"{experiment.name}: no method has a plan: {choices[0].why_not}")
    found = fitting_changes(experiment)
    remedy = f"{' or '.join(found)} would fit" if found else "use a smaller model"
    raise CaseError(
        f"{experiment.name}: no method fits into {experiment.rank_machine.memory_gib:g} GiB (the"
        f" smallest needs {min(sizes):.1f} with the reserve); {remedy}"
    )


def within_band(choices: list[Choice]) -> list[Choice]:
    """Return the fastest that fits and those that fit and may be as fast, fastest first."""
    fitting = [choice for choice in choices if choice.fits()]
    return [choice for choice in fitting if choice.range_s()[0] <= fitting[0].range_s()[1]]


def may_lose(choices: list[Choice]) -> float:
    """Return by which part the fastest that fits is slower than another at most, by the bands."""
    near = within_band(choices)
    others = [choice.range_s()[0] for choice in near[1:]]
    return near[0].range_s()[1] / min(others) - 1 if others else 0.0


def least_memory(choices: list[Choice]) -> Choice:
    """Return the one whose fullest rank needs least; on a tie the first."""
    return min(
        choices, key=lambda choice: max(choice.prediction.needed) if choice.prediction else 0
    )


def fitting_changes(experiment: Experiment) -> list[str]:
    """Return the least change of each setting by which some method's plan would fit."""
    pipeline = experiment.pipeline
    whole = pipeline.batch_size * pipeline.batches
    layers = {"pipeline.layers": ()} if pipeline.layers else {}
    tried: list[list[dict[str, object]]] = [
        [
            {"pipeline.batch_size": size, "pipeline.batches": whole // size}
            for size in range(pipeline.batch_size - 1, 0, -1)
            if whole % size == 0
        ],
        [{"training.recompute": "uniform"}] if experiment.training.recompute == "none" else [],
        [{"pipeline.tensor_parallel": pipeline.tensor_parallel * k} for k in (2, 4, 8)],
        [{"pipeline.ranks": pipeline.ranks * k, **layers} for k in (2, 4, 8)],
    ]
    found = [
        next((change for change in changes if _any_fits(experiment, change)), None)
        for changes in tried
    ]
    return [
        " with ".join(f"{name} = {_toml(value)}" for name, value in change.items())
        for change in found
        if change
    ]


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else "[]" if value == () else str(value)


def _any_fits(experiment: Experiment, change: dict[str, object]) -> bool:
    for name, value in change.items():
        experiment = with_field(experiment, name, value)
    for method in METHODS:
        try:
            plan = make_plan(experiment, method)
        except InputError:
            continue
        if max(needed(plan)) <= plan.machine.memory_gib * GIB:
            return True
    return False


def _choice(experiment: Experiment, method: str) -> Choice:
    """Return a method's fastest plan that fits, of those with other virtual stages."""
    tried = [
        _planned(with_field(experiment, "pipeline.virtual_stages", virtual), method)
        for virtual in _virtual_stages(experiment, method)
    ]
    made = [choice for choice in tried if choice.plan]
    fitting = [choice for choice in made if choice.fits()]
    return min(fitting or made or tried[:1], key=_seconds)


def _virtual_stages(experiment: Experiment, method: str) -> list[int]:
    """Return how many virtual stages to try."""
    pipeline, layers = experiment.pipeline, experiment.model.layers
    if pipeline.virtual_stages or METHODS[method].chunks is not None:
        return [pipeline.virtual_stages]
    if pipeline.layers:
        return [len(pipeline.layers) // pipeline.ranks or USUAL_VIRTUAL]
    return [
        virtual
        for virtual in range(USUAL_VIRTUAL, MOST_VIRTUAL + 1)
        if virtual * pipeline.ranks <= layers or virtual == USUAL_VIRTUAL
    ]


def _seconds(choice: Choice) -> float:
    return choice.prediction.iteration_s if choice.prediction else float("inf")


def _planned(experiment: Experiment, method: str) -> Choice:
    try:
        plan = make_plan(experiment, method)
    except InputError as error:
        return Choice(method, None, None, str(error))
    return Choice(method, plan, predict(plan))
