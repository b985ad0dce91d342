"""From an experiment and its plan to what the service is told."""

import math
from pathlib import Path

import msgspec

from beta.inputs.experiment import Experiment
from beta.inputs.load import Loaded
from beta.inputs.shapes import Shape, shape_of
from beta.plan.placement import Placement, verify
from beta.plan.plans import Plan, timetable_of
from beta.run.folders import classifier_config, labels_of
from beta.run.specs import Deployment, GroupSpec, ModelSpec
from beta.run.weights import read_bert
from common.errors import InputError
from common.ranks import Backend


def deployment_of(
    experiment: Experiment, plan: Plan, loaded: Loaded, *, backend: Backend, seed: int, threads: int
) -> Deployment:
    """Return what to serve. Raises InputError where the plan cannot be served."""
    placement = placement_of(experiment, plan, loaded)
    serve = experiment.serve
    delay = serve.stages == "delay"
    if delay and backend == "nccl":
        raise InputError("serve.stages 'delay' waits and computes nothing; use --backend gloo")
    if delay and serve.ray != "local":
        raise InputError("serve.stages 'delay' needs one machine's clock; use serve.ray=local")
    return Deployment(
        models=model_specs(experiment, loaded, seed),
        groups=group_specs(placement, loaded),
        backend=backend,
        wait=serve.slower if delay else 0.0,
        margin_s=serve.margin_s,
        correct=serve.correct,
        most_outstanding=serve.most_outstanding,
        timeout_s=serve.timeout_s,
        cpus_per_device=serve.cpus_per_device,
        host=serve.host,
        port=serve.port,
        threads=threads,
        per_node=experiment.cluster.devices_per_node,
        api_key=serve.key(),
    )


def placement_of(experiment: Experiment, plan: Plan, loaded: Loaded) -> Placement:
    """Return a plan's placement, checked."""
    if len(plan.periods) > 1:
        raise InputError(
            f"the plan of {plan.method} has {len(plan.periods)} placements in turn; only one can be"
            " served, as of mp-search or sr-greedy"
        )
    (placement,) = timetable_of(plan, loaded.models).placements
    verify(placement, loaded.models, experiment.cluster.cluster())
    if not placement.replicas:
        raise InputError("the plan places no model, so there is nothing to serve")
    return placement


def group_specs(placement: Placement, loaded: Loaded) -> tuple[GroupSpec, ...]:
    """Return the groups that hold models, numbered anew."""
    made = list[GroupSpec]()
    for group in placement.groups:
        if not group.models:
            continue
        stages = {m: loaded.models[m].profile.records[group.config].stage_s for m in group.models}
        made.append(
            GroupSpec(
                number=len(made),
                op=group.config.op,
                pp=group.config.pp,
                models=group.models,
                stage_s=stages,
            )
        )
    return tuple(made)


def model_specs(experiment: Experiment, loaded: Loaded, seed: int) -> tuple[ModelSpec, ...]:
    """Return the models, each with a seed of its own."""
    delay = experiment.serve.stages == "delay"
    specs = list[ModelSpec]()
    for number, model in enumerate(loaded.models):
        kind = model.profile.model
        shape = (
            Shape(sequence=1, hidden=1, layers=1, heads=1)
            if delay
            else described(shape_of(kind, experiment.shapes))
        )
        slo = model.slo_s if model.slo_s < math.inf else None
        specs.append(ModelSpec(name=model.name, shape=shape, seed=seed + number, slo_s=slo))
    return tuple(specs)


def described(shape: Shape) -> Shape:
    """Return a folder's shape with the vocabulary, length and classes of its configuration."""
    if not shape.folder:
        return shape
    folder = Path(shape.folder)
    config, bert = classifier_config(folder), read_bert(folder)
    first = 0 if bert is None else bert.first_position
    try:
        vocabulary, longest = config["vocab_size"], config.get("max_position_embeddings")
        longest = int(longest) - first if longest else shape.sequence
        sizes = int(vocabulary), min(shape.sequence, longest)
        labels = labels_of(config)
    except (KeyError, TypeError, ValueError) as error:
        path = folder / "config.json"
        raise InputError(f"{path}: no configuration of a sequence classifier: {error}") from error
    return msgspec.structs.replace(
        shape,
        vocabulary=sizes[0],
        sequence=sizes[1],
        labels=labels,
        folder=str(Path(shape.folder).resolve()),
    )
