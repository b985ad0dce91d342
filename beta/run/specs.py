"""What controller, managers and workers are told: plain values that travel between processes."""

from typing import Literal

import msgspec

from beta.inputs.shapes import Shape

Backend = Literal["gloo", "nccl"]


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
    stage_s: dict[int, tuple[float, ...]]
    """Seconds of each stage by model, as profiled: what admission predicts with."""

    @property
    def devices(self) -> int:
        """Devices, and stage workers."""
        return self.op * self.pp


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A placement to serve."""

    models: tuple[ModelSpec, ...]
    groups: tuple[GroupSpec, ...]
    backend: Backend
    delay: bool
    """Whether stages only wait as long as the profile says."""
    margin_s: float
    correct: bool
    scale_limit: float
    most_outstanding: int
    timeout_s: float
    cpus_per_device: float
    host: str
    port: int
    threads: int
    """Of each stage worker."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a group manager says of a request."""

    admitted: bool
    logits: tuple[float, ...] = ()
    reason: str = ""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A group that serves."""

    manager_pid: int
    worker_pids: tuple[int, ...]
    scale: float
    """By how much slower than profiled its stages are, as admission takes them."""
    measured_s: dict[int, float]
    """Seconds through the pipeline in warm-up, by model, without what the calls take."""
