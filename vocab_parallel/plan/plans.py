"""A plan as a value: which method, which layers on which stage, and every rank's list of passes.

This is what the verb plan writes as JSON (`common.files`) and `simulate` and `run` read.
"""

from typing import Annotated, Literal

import msgspec

from common.errors import InputError
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.inputs.machine import Machine
from vocab_parallel.inputs.model import Model, layer_parameters, norm_parameters, output_in_layers
from vocab_parallel.plan.check import find_faults
from vocab_parallel.plan.costs import Costs
from vocab_parallel.plan.holdings import Holdings
from vocab_parallel.plan.layers import given_layers, redistributed_layers, shared_layers
from vocab_parallel.plan.methods import find
from vocab_parallel.plan.passes import Positive, Schedule
from vocab_parallel.plan.recompute import recomputed_groups

USUAL_VIRTUAL = 2
"""Virtual stages of a rank where nothing says how many."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pipeline that can be simulated and trained by.

    `layers` has the transformer layers of every stage in pipeline order (2p of V-Half and ZB-V, vp
    of an interleaved method).
    """

    schema: Literal["vocab-plan/2"] = "vocab-plan/2"
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
    holdings: Holdings = Holdings()
    """What a run by this plan keeps; `run` refuses other settings than these."""
    question: str = ""
    """Identifies the experiment and method that this plan answers."""


def make_plan(experiment: Experiment, method: str) -> Plan:
    """Return a method's plan for an experiment; refuses layers that the stages cannot share."""
    pipeline, model = experiment.pipeline, experiment.model
    chosen = find(method)
    _check_tensor(model, pipeline.tensor_parallel)
    costs = Costs(forward=pipeline.forward_cost, backward=pipeline.backward_cost)
    virtual = pipeline.virtual_stages or USUAL_VIRTUAL
    stages = pipeline.ranks * chosen.chunks_of(virtual)
    if pipeline.layers:
        layers = given_layers(pipeline.layers, model.layers, stages)
    elif chosen.redistributes:
        kept = pipeline.final_stage_layers
        layers = redistributed_layers(model.layers, stages, output_in_layers(model), override=kept)
    else:
        whole = chosen.output == "whole"
        layers = shared_layers(model.layers, stages, ranks=pipeline.ranks, whole_output=whole)
    return Plan(
        experiment=experiment.name,
        method=method,
        model=model,
        machine=experiment.rank_machine,
        batch_size=pipeline.batch_size,
        layers=layers,
        schedule=chosen.make(pipeline.ranks, pipeline.batches, costs, virtual),
        tensor=pipeline.tensor_parallel,
        holdings=Holdings.of(experiment.training, pipeline),
    )


def layers_of(plan: Plan, stage: int) -> range:
    """Return the numbers of a stage's layers."""
    before = sum(plan.layers[:stage])
    return range(before, before + plan.layers[stage])


def recomputed(plan: Plan, stage: int) -> list[range]:
    """Return the groups of a stage's layers that B computes again."""
    held = plan.holdings
    return recomputed_groups(held.recompute, held.recompute_layers, layers_of(plan, stage))


def _check_tensor(model: Model, tensor: int) -> None:
    sizes = ("heads", model.heads), ("kv_heads", model.groups), ("ffn", model.wide)
    for field, value in sizes:
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
    count += first * model.sequence * model.hidden * (model.positions == "learned")
    count += last * norm_parameters(model)
    matrices = 2 if schedule.barriers else first + last
    if model.tied:
        matrices = min(matrices, 1)  # first and last stage on one rank share it
    return count + matrices * model.vocabulary * model.hidden // vocabulary_shards(plan)


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
    if plan.schedule.method != plan.method:
        raise InputError(
            f"{where}: schedule.method is {plan.schedule.method!r}, expected {plan.method!r}, the"
            " plan's own"
        )
    faults = find_faults(plan.schedule)
    if faults:
        raise InputError(f"{where}: {len(faults)} faults, the first: {faults[0]}")
