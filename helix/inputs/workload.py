"""What is asked of the service: always as much as it takes, or so much at so many times."""

import math
from typing import Literal

import msgspec

from common.errors import InputError

Scheduler = Literal["maxflow", "swarm", "random", "shortest_queue"]
Fault = Literal["doubled_single_decode", "receiver_free_while_arriving", "shuffled_trace"]


class WorkloadSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of the service; numbers may be given by service (the plan's names)."""

    mode: Literal["offline", "online"] = "offline"
    """offline: requests always wait; online: they arrive at their own times."""
    scheduler: Scheduler = "maxflow"
    """How the next machine is chosen: by the plan's flow, or a rule of the paper's baselines."""
    initial: int | dict[str, int] = 20
    """offline: queries at the start, and for other schedulers than maxflow all the time."""
    tokens_per_s: float | dict[str, float] = 100.0
    """online: prompt and answer tokens offered per second on average."""
    trace: str = ""
    """online: a trace of one's own instead, CSV or JSON lines; see helix/README.md."""
    trace_from_s: float = 0.0
    """Where in the trace the window begins, seconds after its first request."""
    rate_scale: float = 1.0
    """How many times as fast the trace's requests arrive."""
    duration_s: float = 600.0
    """Seconds that count."""
    warm_up_s: float = 60.0
    """offline: seconds before them."""
    timeline_s: float = 0.0
    """Write what happens in the first so many seconds, to be opened in Perfetto; 0: nothing."""
    compat: bool = False
    """Keep the original simulator's faults (helix/simulate/switches.py)."""
    right: tuple[Fault, ...] = ()
    """With compat: faults that are put right all the same."""

    def __post_init__(self) -> None:
        """Refuse times and rates that are not positive."""
        rates = self.tokens_per_s
        for name, value in (rates if isinstance(rates, dict) else {"": rates}).items():
            if not 0 < value < math.inf:
                raise InputError(f"workload.tokens_per_s {name} is {value}, expected above 0")
        counts = self.initial
        for name, value in (counts if isinstance(counts, dict) else {"": counts}).items():
            if value < 1:
                raise InputError(f"workload.initial {name} is {value}, expected 1 or more")
        if not (0 <= self.trace_from_s < math.inf and 0 < self.rate_scale < math.inf):
            raise InputError(
                f"workload: trace_from_s is {self.trace_from_s}, expected 0 or more, and rate_scale"
                f" {self.rate_scale}, expected above 0"
            )
        if not 0 <= self.timeline_s < math.inf:
            raise InputError(f"workload.timeline_s is {self.timeline_s}, expected 0 or more")
        if not (0 < self.duration_s < math.inf and 0 <= self.warm_up_s < math.inf):
            raise InputError(
                f"workload: duration_s {self.duration_s} and warm_up_s {self.warm_up_s}, expected"
                " above 0 and 0 or more, both finite"
            )
