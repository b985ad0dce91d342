"""What a plan leaves open about training, and what a run hands back: values without torch."""

from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from common.errors import InputError
from common.ranks import Backend
from metis.inputs.model import Model
from metis.plan.plans import Plan
from metis.simulate.timeline import Timeline

Dtype = Literal["float32", "float64", "bfloat16"]


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train. The four widths replace the plan's, so that its layout runs on a laptop."""

    hidden_size: int | None = None
    sequence_length: int | None = None
    vocabulary: int | None = None
    heads: int | None = None
    dtype: Dtype = "float32"
    """Of weights, activations and optimizer state."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    """Of matrices; norms and biases are not decayed."""
    clip: float | None = None
    """Largest norm of the gradient over all ranks; None leaves it as it is."""
    tokens: str = ""
    """A .npy file of token ids in one row; empty: synthetic tokens by seed."""
    checkpoint_every: int = 0
    """Steps between two checkpoints, one at the end as well; 0: none."""
    resume: str = ""
    """A checkpoint's folder, or that of a run's checkpoints, to go on from."""
    timeout_s: float = 600.0
    """How long a rank waits for another before it gives up."""

    def apply(self, plan: Plan) -> Plan:
        """Return the plan with the widths given here; its layers and batch stay."""
        names = ("hidden_size", "sequence_length", "vocabulary", "heads")
        widths = {name: getattr(self, name) for name in names}
        given = {name: width for name, width in widths.items() if width is not None}
        if not given:
            return plan
        kept = msgspec.structs.asdict(plan.model) | {"config": ""}
        kept.pop("kv_heads")
        model = Model(**{**kept, **given})
        return msgspec.structs.replace(plan, model=model)


class Job(NamedTuple):
    """What every rank of a run is told."""

    plan: Plan
    training: Training
    seed: int
    steps: int
    backend: Backend
    checkpoints: Path | None = None
    """Where rank 0 writes checkpoints; None: nowhere."""


class StageTime(msgspec.Struct, frozen=True, kw_only=True):
    """One stage: the measured median of its slowest replica beside the plan's figure, in ms."""

    stage: int
    forward_ms: float
    backward_ms: float
    predicted_ms: float
    allreduce_ms: float
    predicted_allreduce_ms: float
    update_ms: float
    predicted_update_ms: float
    peak_memory_mb: float | None
    """Of the fullest device, CUDA only."""
    predicted_memory_mb: float

    @property
    def measured_ms(self) -> float:
        """Forward + backward of one micro-batch, without waiting for other stages."""
        return self.forward_ms + self.backward_ms


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measured; `steps` entries where a value belongs to a step."""

    experiment: str
    model: Model
    scaled: bool
    """The model is not the plan's, so measured and predicted times do not belong together."""
    backend: str
    device: str
    dtype: str
    world_size: int
    seed: int
    first_step: int = 0
    """Number of the first of these steps, above 0 where training was resumed."""
    losses: tuple[float, ...]
    """Mean cross entropy over the global batch before each step, in nat."""
    gradient_norms: tuple[float, ...]
    iteration_ms: tuple[float, ...]
    """Of the slowest rank; the first step warms up."""
    predicted_iteration_ms: float
    stages: tuple[StageTime, ...]
    timeline: Timeline
    """The last step as it happened on the first replica of every stage."""

    @property
    def median_iteration_ms(self) -> float:
        """Median over the steps after the first."""
        return median(self.iteration_ms[1:] or self.iteration_ms)


def check_widths(plan: Plan) -> None:
    """Raise `InputError` unless every stage can split heads and vocabulary over its ranks."""
    check_family(plan.model)
    for number, stage in enumerate(plan.stages):
        check_degree(plan.model, stage.tp, f"stages[{number}]: tp {stage.tp}")


def check_family(model: Model) -> None:
    """Raise `InputError` unless the model is a GPT, which is what ranks train here."""
    if model.config and (family := model.architecture().family) != "gpt2":
        raise InputError(
            f"model.config {model.config} is of the family {family}, which metis plans but does not"
            " train; train by the plan with Megatron, or name a gpt2 config"
        )


def check_degree(model: Model, tp: int, where: str) -> None:
    """Raise `InputError` unless heads and vocabulary can be split over `tp` ranks."""
    if model.heads % tp:
        raise InputError(
            f"{where} does not divide the model's {model.heads} heads;"
            f" choose model.heads as a multiple of {tp}"
        )
    if model.vocabulary < tp:
        raise InputError(
            f"{where} is larger than the vocabulary of {model.vocabulary} tokens;"
            " choose a larger model.vocabulary"
        )
