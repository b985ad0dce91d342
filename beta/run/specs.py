"""What controller, managers and workers are told: plain values that travel between processes."""

import math

import msgspec

from beta.inputs.shapes import Shape
from common.ranks import Backend


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A model instance; its number in the list of models is its index."""

    name: str
    shape: Shape
    seed: int
    """Of its random weights."""
    slo_s: float | None
    """Latency target; None: none."""


class GroupSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A group of devices and the models on it."""

    number: int
    op: int
    pp: int
    models: tuple[int, ...]
    stage_s: dict[int, dict[int, tuple[float, ...]]]
    """Seconds of each stage by model and batch size, as profiled: what admission predicts with."""

    @property
    def devices(self) -> int:
        """Devices, and stage workers."""
        return self.op * self.pp

    def alone_s(self, model: int) -> float:
        """Return the seconds of one request through all stages, as profiled."""
        return sum(self.stage_s[model][1])


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A placement to serve."""

    models: tuple[ModelSpec, ...]
    groups: tuple[GroupSpec, ...]
    backend: Backend
    wait: float
    """Stages only wait, so many times as long as the profile says; 0: they compute."""
    margin_s: float
    correct: bool
    most_outstanding: int
    timeout_s: float
    cpus_per_device: float
    host: str
    port: int
    threads: int
    """Of each stage worker."""
    per_node: int
    """Devices of a node, as planned."""
    api_key: str = ""
    """What clients have to send; empty: nothing."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a group manager says of a request."""

    admitted: bool
    logits: tuple[float, ...] | None = None
    """None where it was dropped: it could not be answered in time any more."""
    reason: str = ""
    idle_s: float = math.inf
    """Seconds through the group with nothing else in it, as learnt."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A group that serves."""

    manager_pid: int
    worker_pids: tuple[int, ...]
    scale: dict[int, float]
    """By how much slower than profiled admission took its stages at the start, by model."""
    measured_s: dict[int, float]
    """Seconds through the pipeline in warm-up, by model, without what the calls take."""
