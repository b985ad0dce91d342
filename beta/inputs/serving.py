"""How a placement is served for real (`run`) and how this machine is measured (`profile`)."""

import math
from typing import Literal

import msgspec

from common.errors import InputError


class MeasureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which configs and batch sizes `profile` measures; more than the machine has are left out."""

    op: tuple[int, ...] = (1, 2)
    pp: tuple[int, ...] = (1, 2, 4, 8)
    batch: tuple[int, ...] = (1,)
    runs: int = 7

    def __post_init__(self) -> None:
        """Refuse sizes below 1."""
        sizes = (*self.op, *self.pp, *self.batch, self.runs)
        if not (self.op and self.pp and self.batch) or min(sizes) < 1:
            raise InputError("measure: expected op, pp, batch and runs of 1 or more")


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The service and the load that is put on it."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: any that is free; it is printed."""
    ray: str = "local"
    """`local` (started here and ended with it), `auto`, host:port or ray://host:port."""
    load: Literal["traffic", "none"] = "traffic"
    """Play the experiment's traffic, then drain; or serve until SIGTERM or Ctrl-C."""
    target: str = ""
    """URL of a service that runs already: only put the load on it."""
    stages: Literal["model", "delay"] = "model"
    """Compute, or only wait as long as the profile says (marked so in every record)."""
    cpus_per_device: float = 1.0
    """What a stage worker asks of a Ray cluster; with nccl a GPU besides."""
    margin_s: float = 0.004
    """What admission leaves free before the deadline."""
    correct: bool = True
    """Whether admission learns from answers that came late."""
    scale_limit: float = 1.08
    """Most by which admission takes stages for slower than the profile; above, it is told."""
    most_outstanding: int = 1000
    """Requests that a group holds before it refuses more: what bounds memory without targets."""
    timeout_s: float = 60.0
    """Seconds until a request without a target is answered with an error."""
    drain_s: float = 30.0
    """Seconds that requests in flight have to end when the service is told to."""
    kill_every_s: float = 0.0
    """Kill a stage worker or a group manager, in turn, as often (a test of one's own); 0: never."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for field in ("timeout_s", "drain_s", "scale_limit", "most_outstanding"):
            if not 0 < getattr(self, field) < math.inf:
                raise InputError(
                    f"serve.{field} is {getattr(self, field)}, expected a positive number"
                )
        for field in ("cpus_per_device", "margin_s", "kill_every_s"):
            if not 0 <= getattr(self, field) < math.inf:
                raise InputError(f"serve.{field} is {getattr(self, field)}, expected 0 or more")
        if not 0 <= self.port < 65536:
            raise InputError(f"serve.port is {self.port}, expected 0 to 65535")
        if self.target and not self.target.startswith("http://"):
            raise InputError(f"serve.target is {self.target!r}, expected http://host:port")
