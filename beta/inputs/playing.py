"""How a placement is played: choices that simulators read."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from beta.inputs.model import Model

Dispatch = Literal["first_free", "deadline"]
"""To the replica whose last stage is free first; or, where that one is too late, to the replica
that answers first (not in the paper)."""

Simulator = Literal["auto", "fast", "batching", "events"]


class Delays(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Delays of the event simulator in seconds, normally distributed, never negative."""

    http_s: float = 0.0025
    """Client to controller, seconds."""
    dispatch_s: float = 0.0025
    """Controller to group, seconds."""
    backend_s: float = 0.005
    """Admission to the first stage, seconds."""
    deviation_s: float = 0.0005
    """Standard deviation of each, seconds."""
    margin_s: float = 0.004
    """Seconds that admission adds to its prediction."""


class SimulatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a placement is played, on the test workload and where methods are compared."""

    kind: Simulator = "auto"
    """fast as in the paper (one request at a time), batching (batch sizes of the profile), or
    events (a request's way with its delays, batched likewise); auto: batching where the profile
    has sizes above 1 and `dispatch` is as in the paper, else fast."""
    dispatch: Dispatch = "first_free"
    """fast: the replica that is free first, or, where that one is too late, the one that answers
    first."""
    warm_up_s: float = 10.0
    """As many requests as come in so many seconds do not count at both ends of the workload."""
    delays: Delays = Delays()
    """Delays of the event simulator."""


def kind_of(settings: SimulatorSettings, models: Sequence[Model]) -> Simulator:
    """Return the simulator that is meant: never auto."""
    if settings.kind != "auto":
        return settings.kind
    batched = any(model.profile.batched for model in models)
    return "batching" if batched and settings.dispatch == "first_free" else "fast"
