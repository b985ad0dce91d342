"""A plan as a value: which devices form which stage, how each stage splits batch and tensors.

This is what the search returns, `plan` writes as JSON, and `simulate` and `run` read.
"""

import msgspec

from common.errors import InputError
from metis.inputs.cluster import Cluster
from metis.inputs.model import Model
from metis.inputs.savings import Recompute


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pipeline stage: a contiguous range of ranks that holds a contiguous range of layers.

    Replica i of the stage is the `tp` ranks from `first_rank + i * tp`; it processes
    `samples[i]` samples of every micro-batch.
    """

    first_rank: int
    device_types: tuple[str, ...]
    """Device type of every rank of the stage, in rank order."""
    dp: int
    tp: int
    first_layer: int
    end_layer: int
    """Layers first_layer .. end_layer - 1."""
    samples: tuple[int, ...]
    """Samples per replica and micro-batch, one entry per replica."""
    recompute: Recompute = "none"
    """What is computed again in the backward pass: nothing, every MLP, or every block."""
    sharded: bool = False
    """Whether each replica holds and updates its part of the optimizer's states only (ZeRO-1)."""
    execution_ms: float = 0.0
    """Predicted forward + backward time of one micro-batch."""
    memory_mb: float = 0.0
    """Predicted peak memory of the fullest device (compat: demand of the whole group)."""
    capacity_mb: float = 0.0
    """Memory that this demand is compared with."""
    send_ms: float = 0.0
    """Predicted time to exchange one micro-batch's activations and gradients with the next."""
    allreduce_ms: float = 0.0
    """Predicted gradient all-reduce over the replicas."""
    update_ms: float = 0.0
    """Predicted optimizer step."""

    @property
    def devices(self) -> int:
        """Number of ranks."""
        return len(self.device_types)

    @property
    def layers(self) -> int:
        """Number of layers held."""
        return self.end_layer - self.first_layer


class PlacedNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node that a plan stands on."""

    host: str
    device: str
    devices: int


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A complete training plan with its predicted time per iteration."""

    schema: str = "metis-plan/1"
    experiment: str
    method: str
    mode: str
    model: Model
    node_sequence: tuple[str, ...]
    """Order in which the device types take the ranks."""
    machines: tuple[int, ...] = ()
    """The cluster's machines that are used, in rank order, numbered from 0 as they are written;
    empty: all, in the node sequence's order."""
    nodes: tuple[PlacedNode, ...] = ()
    """The same machines by their hosts, in rank order; empty in mode compat, whose placement counts
    ranks to other nodes."""
    batches: int
    """Micro-batches per iteration and pipeline."""
    stages: tuple[Stage, ...]
    cost_ms: float
    """Predicted milliseconds per iteration (one global batch)."""
    cost_terms: dict[str, float] = {}
    """The terms that add up to `cost_ms`."""
    lower_bound_ms: float | None = None
    proof: str = ""
    """What is proven about `cost_ms`, in words."""
    question: str = ""
    """Identifies the experiment and method that this plan answers."""

    @property
    def world_size(self) -> int:
        """Ranks over all stages."""
        return sum(stage.devices for stage in self.stages)


def placed(plan: Plan, cluster: Cluster) -> Plan:
    """Return the plan with the nodes that it stands on."""
    nodes = cluster.chosen(plan.machines, plan.node_sequence)
    named = (PlacedNode(host=n.host, device=n.device, devices=n.devices) for n in nodes)
    return msgspec.structs.replace(plan, nodes=tuple(named))


def check(plan: Plan, where: str = "plan") -> None:
    """Raise `InputError` unless ranks and layers are each covered exactly once, in order."""
    if not plan.stages:
        raise InputError(f"{where}: stages is empty, expected at least one")
    rank, layer = 0, 0
    for number, stage in enumerate(plan.stages):
        at = f"{where}: stages[{number}]"
        if stage.dp < 1 or stage.tp < 1 or stage.dp * stage.tp != stage.devices:
            raise InputError(
                f"{at}: dp {stage.dp} x tp {stage.tp} = {stage.dp * stage.tp}"
                f" but device_types has {stage.devices} devices"
            )
        if stage.first_rank != rank:
            raise InputError(f"{at}: first_rank is {stage.first_rank}, expected {rank}")
        if stage.first_layer != layer or stage.end_layer <= layer:
            raise InputError(
                f"{at}: layers {stage.first_layer}..{stage.end_layer - 1}, expected at least one"
                f" layer from {layer} on"
            )
        _check_samples(plan, stage, at)
        rank, layer = rank + stage.devices, stage.end_layer
    placed = sum(node.devices for node in plan.nodes)
    if plan.nodes and placed != rank:
        raise InputError(f"{where}: its nodes have {placed} devices, but its stages {rank} ranks")
    if layer != plan.model.layers:
        raise InputError(f"{where}: the stages hold {layer} of {plan.model.layers} layers")


def _check_samples(plan: Plan, stage: Stage, at: str) -> None:
    """Raise `InputError` unless every replica has samples and all make up the global batch."""
    samples = list(stage.samples)
    if len(samples) != stage.dp:
        raise InputError(f"{at}: samples {samples}, expected one entry for each of dp {stage.dp}")
    if min(samples) < 1:
        idle = next(replica for replica, count in enumerate(samples) if count < 1)
        raise InputError(
            f"{at}: replica {idle} has no sample of a micro-batch (samples {samples}); give each"
            f" at least 1, or take dp {stage.dp - 1} at most"
        )
    if sum(samples) * plan.batches != plan.model.global_batch:
        raise InputError(
            f"{at}: {sum(samples)} samples x {plan.batches} micro-batches is not the global batch"
            f" {plan.model.global_batch}"
        )
