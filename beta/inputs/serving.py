"""How a placement is served for real (`run`) and how this machine is measured (`profile`)."""

import math
import os
from pathlib import Path
from typing import Literal

import msgspec

from common.errors import InputError


class MeasureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which configs and batch sizes `profile` measures; more than the machine has are left out."""

    op: tuple[int, ...] = (1, 2)
    """Tensor degrees to measure."""
    pp: tuple[int, ...] = (1, 2, 4, 8)
    """Pipeline depths to measure."""
    batch: tuple[int, ...] = (1,)
    """Batch sizes to measure."""
    runs: int = 7
    """Times each stage is timed; the median counts."""

    def __post_init__(self) -> None:
        """Refuse sizes below 1."""
        sizes = (*self.op, *self.pp, *self.batch, self.runs)
        if not (self.op and self.pp and self.batch) or min(sizes) < 1:
            raise InputError("measure: expected op, pp, batch and runs of 1 or more")


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The service and the load that is put on it."""

    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 0
    """0: any that is free; it is printed."""
    api_key: str = ""
    """Where the key is that clients have to send as a bearer token: env:NAME or file:PATH; empty:
    none is asked for. The key itself would go into every record of a run."""
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
    """Seconds that admission leaves free before the deadline."""
    correct: bool = True
    """Whether admission learns from how long stages take; else it believes the profile."""
    slower: float = 1.0
    """`delay`: stages wait so many times as long as the profile says (how overload is tried)."""
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
        for field in ("timeout_s", "drain_s", "slower", "most_outstanding"):
            if not 0 < getattr(self, field) < math.inf:
                raise InputError(
                    f"serve.{field} is {getattr(self, field)}, expected a positive number"
                )
        for field in ("cpus_per_device", "margin_s", "kill_every_s"):
            if not 0 <= getattr(self, field) < math.inf:
                raise InputError(f"serve.{field} is {getattr(self, field)}, expected 0 or more")
        if self.api_key and not self.api_key.startswith(("env:", "file:")):
            raise InputError("serve.api_key is a key itself, expected env:NAME or file:PATH")
        if not 0 <= self.port < 65536:
            raise InputError(f"serve.port is {self.port}, expected 0 to 65535")
        if self.target and not self.target.startswith("http://"):
            raise InputError(f"serve.target is {self.target!r}, expected http://host:port")

    def key(self) -> str:
        """Return the key that clients have to send; empty: none. InputError if it is not there."""
        kind, _, place = self.api_key.partition(":")
        if not kind:
            return ""
        try:
            found = os.environ[place] if kind == "env" else Path(place).read_text(encoding="utf-8")
        except KeyError:
            raise InputError(f"serve.api_key: {place} is not set in the environment") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"serve.api_key: {place}: {error}") from None
        if not found.strip():
            raise InputError(f"serve.api_key: {place} is empty")
        return found.strip()
