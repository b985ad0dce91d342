"""A plan as a value: which method, which layers on which stage, and every rank's list of passes.

This is what `plan` writes as JSON and `simulate` and `run` read.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from common.errors import InputError
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.inputs.machine import Machine
from vocab_parallel.inputs.model import Model, layer_parameters, output_in_layers
from vocab_parallel.plan.check import find_faults
from vocab_parallel.plan.costs import Costs
from vocab_parallel.plan.layers import given_layers, redistributed_layers, shared_layers
from vocab_parallel.plan.methods import find
from vocab_parallel.plan.passes import Positive, Schedule


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pipeline that can be simulated and trained by.

    `layers` has the transformer layers of every stage in pipeline order (V-Half: 2p stages).
    """

    schema: Literal["vocab-plan/1"] = "vocab-plan/1"
    experiment: str
    method: str
    model: Model
    machine: Machine
    batch_size: Positive
    """Sequences per micro-batch."""
    layers: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    schedule: Schedule
    tensor: Positive = 1
    """Ranks that share every pipeline position (tensor parallelism)."""
    question: str = ""
    """Identifies the experiment and method that this plan answers."""


def make_plan(experiment: Experiment, method: str) -> Plan:
    """Return a method's plan for an experiment; refuses layers that the stages cannot share."""
    pipeline, model = experiment.pipeline, experiment.model
    chosen = find(method)
    _check_tensor(model, pipeline.tensor_parallel)
    costs = Costs(forward=pipeline.forward_cost, backward=pipeline.backward_cost)
    stages = pipeline.ranks * chosen.chunks
    if pipeline.layers:
        layers = given_layers(pipeline.layers, model.layers, stages)
    elif chosen.redistributes:
        kept = pipeline.final_stage_layers
        layers = redistributed_layers(model.layers, stages, output_in_layers(model), override=kept)
    else:
        whole = chosen.output == "whole"
        layers = shared_layers(model.layers, stages, whole_output=whole)
    return Plan(
        experiment=experiment.name,
        method=method,
        model=model,
        machine=experiment.device,
        batch_size=pipeline.batch_size,
        layers=layers,
        schedule=chosen.make(pipeline.ranks, pipeline.batches, costs),
        tensor=pipeline.tensor_parallel,
    )


def _check_tensor(model: Model, tensor: int) -> None:
    for field, value in (("heads", model.heads), ("ffn", model.wide)):
        if value % tensor:
            raise InputError(
                f"pipeline.tensor_parallel is {tensor}, which does not divide the model's {field}"
                f" ({value})"
            )


def vocabulary_shards(plan: Plan) -> int:
    """Return into how many pieces the vocabulary matrices are cut."""
    return plan.tensor * (plan.schedule.ranks if plan.schedule.barriers else 1)


def parameters(plan: Plan, rank: int) -> int:
    """Return a rank's parameters: layers, positions on the first stage, norm, vocabulary."""
    model, schedule = plan.model, plan.schedule
    stages = [schedule.stage(rank, chunk) for chunk in range(schedule.chunks)]
    count = sum(plan.layers[stage] for stage in stages) * layer_parameters(model, plan.tensor)
    first, last = 0 in stages, schedule.stages - 1 in stages
    count += first * model.sequence * model.hidden + last * 2 * model.hidden
    matrices = 2 if schedule.barriers else first + last
    if model.tied:
        matrices = min(matrices, 1)  # first and last stage on one rank share it
    return count + matrices * model.vocabulary * model.hidden // vocabulary_shards(plan)


def write(plan: Plan, path: Path) -> None:
    """Write the plan as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(plan) + b"\n")


def read(path: Path) -> Plan:
    """Read a plan and check that its schedule can be carried out."""
    if not path.is_file():
        raise InputError(f"{path}: no such plan file; write one with the verb plan")
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except (msgspec.DecodeError, InputError) as error:
        raise InputError(f"{path}: not a valid plan: {error}") from error
    check(plan, str(path))
    return plan


def check(plan: Plan, where: str = "plan") -> None:
    """Raise `InputError` unless the layers are all held and the schedule has no fault."""
    if len(plan.layers) != plan.schedule.stages or sum(plan.layers) != plan.model.layers:
        raise InputError(
            f"{where}: layers {list(plan.layers)}, expected {plan.schedule.stages} stages that"
            f" hold {plan.model.layers} layers"
        )
    _check_tensor(plan.model, plan.tensor)
    output, barriers = find(plan.method).output, plan.schedule.barriers
    if output != {0: "whole", 1: "vocab-2"}.get(barriers, "vocab-1"):
        raise InputError(
            f"{where}: a schedule of {barriers} barriers, which is none of method {plan.method}"
        )
    faults = find_faults(plan.schedule)
    if faults:
        raise InputError(f"{where}: {len(faults)} faults, the first: {faults[0]}")
