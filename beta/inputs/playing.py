"""How a placement is played: choices that simulators read."""

from typing import Literal

import msgspec

Dispatch = Literal["first_free", "deadline"]
"""To the replica whose last stage is free first; or, where that one is too late, to the replica
that answers first (not in the paper)."""

Simulator = Literal["fast", "batching", "events"]


class Delays(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Delays of the event simulator in seconds, normally distributed, never negative."""

    http_s: float = 0.0025
    """Client to controller."""
    dispatch_s: float = 0.0025
    """Controller to group."""
    backend_s: float = 0.005
    """Admission to the first stage."""
    deviation_s: float = 0.0005
    """Standard deviation of each."""
    margin_s: float = 0.004
    """What admission adds to its prediction."""


class SimulatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the placement is played on the test workload. Placing always uses the fast simulator."""

    kind: Simulator = "fast"
    dispatch: Dispatch = "first_free"
    """Fast simulator: which replica a request goes to."""
    warm_up_s: float = 10.0
    delays: Delays = Delays()
    """Event simulator."""
