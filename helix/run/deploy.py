"""What each machine is given to serve its part of a plan: layers, limits, links. Starts nothing."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from common.architecture import sheet
from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE
from helix.inputs.experiment import Experiment
from helix.inputs.model_source import ModelSource
from helix.inputs.profile import Limits
from helix.plan.placement import UNUSED
from helix.plan.plans import Plan, Service
from helix.plan.question import Question, ask
from helix.run.decoder_config import DecoderConfig, config_of_shape, read_config
from helix.run.lane import Lane
from helix.run.messages import HEAD
from helix.run.pace import Pace
from helix.simulate.service import system_of
from helix.simulate.simulate import EXPECTED_PART, HIGH_WATER

TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}


class Part(NamedTuple):
    """One machine's part of the service."""

    machine: int
    kind: str
    first: int
    end: int
    limits: Limits
    pace: Pace | None


class WireTo(NamedTuple):
    """A link of a machine (`HEAD`: of the head) and what is played on it."""

    tail: int
    head: int
    bytes_per_s: float
    latency_s: float


def model_config(experiment: Experiment) -> DecoderConfig:
    """Return the served model's configuration; raise `InputError` if it is not the planned one."""
    serve, shape = experiment.serve, experiment.model.shape
    if not serve.weights:
        if shape is None:
            raise InputError(
                "run serves a folder of weights (serve.weights) or random ones of [model.shape];"
                " the experiment has neither"
            )
        return config_of_shape(shape, experiment.model.layers, serve.vocabulary, serve.longest)
    config, layers = read_config(Path(serve.weights)), experiment.model.load().layers
    if config.layers != layers:
        raise InputError(
            f"{serve.weights} has {config.layers} layers, but the experiment's model {layers}"
        )
    for field, size in _sizes(experiment.model).items():
        if getattr(config, field) != size:
            raise InputError(
                f"{serve.weights}: {field} is {getattr(config, field)}, but the experiment's model"
                f" has {size}"
            )
    return config


def _sizes(model: ModelSource) -> dict[str, int]:
    """Return what weights have to agree with; nothing of a model shipped by name."""
    fields = ("hidden_size", "intermediate_size", "heads", "kv_heads", "head_size")
    if model.config:
        own = model.architecture()
        sizes = (own.hidden, own.mlp_width, own.heads, own.kv_heads, own.head_dim)
        return dict(zip(fields, sizes, strict=True))
    return {field: getattr(model.shape, field) for field in fields} if model.shape else {}


def served_dtype(experiment: Experiment) -> str:
    """Return the type of values in service: that of the plan's memory, or one no larger.

    Raises:
        InputError: weights and KV cache would take more memory than the plan has for them.
    """
    model, wanted = experiment.model, experiment.serve.dtype
    if model.config:
        own = model.architecture()
        planned, kept = TYPES.get(own.dtype, "bfloat16"), sheet()["bytes"][own.kv_dtype]
        size = 0.5 if own.quantization else sheet()["bytes"][own.dtype]
    elif model.shape is not None:
        planned = TYPES[model.shape.layer(model.layers).dtype]
        size, kept = model.shape.value_bytes, model.shape.cache_bytes
    else:
        planned, size, kept = "float16", 2, 2  # the artifact's measurements
    chosen = wanted or planned
    if min(size, kept) < WIDTHS[chosen]:
        raise InputError(
            f"{'serve.dtype is' if wanted else 'the service computes in'} {chosen}, of"
            f" {WIDTHS[chosen]} bytes a value, but the plan's memory counts {size:g} for weights"
            f" and {kept:g} for the KV cache; plan for what is served (model.dtype, model.kv_dtype"
            " or value_bytes, no quantization)"
        )
    return chosen


class Deployment:
    """An experiment's question and the plan that answers it, as the service carries it out."""

    def __init__(self, experiment: Experiment, plan: Plan, seed: int) -> None:
        """Check that the plan is for these machines and this model."""
        self.experiment, self.plan, self.seed = experiment, plan, seed
        self.question: Question = ask(experiment)
        self.config, self.dtype = model_config(experiment), served_dtype(experiment)
        kinds = tuple(node.kind for node in self.question.cluster.nodes)
        if kinds != plan.machines:
            raise InputError(
                f"the plan is for other machines than experiment {experiment.name} has; plan again"
            )
        if experiment.workload.scheduler == "shortest_queue":
            raise InputError(
                "run cannot send to the shortest queue, which nobody knows without asking; take"
                " workload.scheduler maxflow, swarm or random"
            )

    def lanes(self, services: tuple[Service, ...]) -> list[Lane]:
        """Return how requests are routed over these services."""
        serve, workload = self.experiment.serve, self.experiment.workload
        marks = (serve.high_water, serve.answer_part)
        if serve.load == "workload":  # as the simulator has them
            offline = workload.mode == "offline"
            marks = HIGH_WATER[offline], EXPECTED_PART[offline]
        return [
            Lane(one.name, one.machines, self._system(one), workload.scheduler, marks, self.seed)
            for one in services
        ]

    def _system(self, one: Service):
        q = self.question
        return system_of(one, q.cluster, q.model, q.profiles)

    def parts(self, services: tuple[Service, ...]) -> dict[int, Part]:
        """Return every machine's part, by machine."""
        found = dict[int, Part]()
        for one in services:
            system, nodes = self._system(one), one.part(self.question.cluster).nodes
            for i, machine in enumerate(one.machines):
                if one.intervals[i] == UNUSED:
                    continue
                profile, place = self.question.profiles[nodes[i].kind], i + FIRST
                limits = Limits(
                    kv_entries=int(system.kv_entries[place]),
                    prompt_requests=int(system.prompt_requests[place]),
                    decode_requests=int(system.decode_requests[place]),
                )
                pace = Pace(profile.prompt, profile.decode) if self.experiment.serve.play else None
                kind = self.plan.machines[machine]
                found[machine] = Part(machine, kind, *one.intervals[i], limits, pace)
        return found

    def wires(self, services: tuple[Service, ...]) -> list[WireTo]:
        """Return every link; each machine has one to the head, which it may need to say no."""
        played, found = self.experiment.serve.play, dict[tuple[int, int], WireTo]()
        for one in services:
            system = self._system(one)
            name = {SOURCE: HEAD, SINK: HEAD}
            name |= {i + FIRST: machine for i, machine in enumerate(one.machines)}
            for link in range(len(system.tail)):
                tail, head = name[int(system.tail[link])], name[int(system.head[link])]
                rate, latency = float(system.bandwidth[link]), float(system.latency[link])
                shape = (rate, latency) if played else (0.0, 0.0)
                found[tail, head] = WireTo(tail, head, *shape)
        for machine in self.parts(services):
            for ends in ((HEAD, machine), (machine, HEAD)):
                found.setdefault(ends, WireTo(*ends, 0.0, 0.0))
        return list(found.values())


def kinds_needed(parts: dict[int, Part]) -> dict[str, int]:
    """Return how many machines of each kind hold layers."""
    counts = dict[str, int]()
    for part in parts.values():
        counts[part.kind] = counts.get(part.kind, 0) + 1
    return counts


def shape_of(service: Service) -> str:
    """Return who holds what, for the log."""
    held = [
        f"{machine}: {first}-{end - 1}"
        for machine, (first, end) in zip(service.machines, service.intervals, strict=True)
        if (first, end) != UNUSED
    ]
    return f"{service.name} [{', '.join(held)}] {service.flow:.1f} tokens/s"


def same_holdings(old: dict[int, Part], new: dict[int, Part]) -> set[int]:
    """Return the machines that hold the same layers in both."""
    keep = (machine for machine in new if machine in old)
    return {m for m in keep if msgspec.structs.astuple(old[m].limits) ==
            msgspec.structs.astuple(new[m].limits) and old[m][:4] == new[m][:4]}  # fmt: skip
