"""What is asked of the models, and what of it a placement method may look at."""

import math
from typing import Literal

import msgspec

from beta.inputs.replay import Gaps, Mapping
from common.errors import InputError

Source = Literal["gamma", "deterministic", "modulated", "azure2019", "azure2021", "requests"]
MOST_RATE = 1e6
"""Requests/s (and CV) above which a number is taken for a mistake."""
_TRACES = ("azure2019", "azure2021")


class Traffic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of the models; every test and training workload comes from it."""

    source: Source = "gamma"
    """Drawn: gamma gaps, deterministic, or modulated (Poisson whose rate jumps); Azure's traces of
    2019 or 2021; or requests, a CSV `arrival_s,model` of one's own."""
    rate: float = 0.0
    """Requests/s of all models together (drawn sources), where models have none of their own."""
    distribution: Literal["uniform", "power_law", "triangle_decay"] = "power_law"
    """How models share `rate`: alike, model i as (i + 1)^-0.5, or 1, 1/2 twice, 1/4 four times."""
    cv: float = 1.0
    """Coefficient of variation of the gaps between a model's requests; 1: Poisson."""
    duration_s: float = 200.0
    """Seconds of requests (drawn sources)."""
    state_s: tuple[float, ...] = (20.0, 5.0)
    """`modulated`: seconds that each state lasts on average."""
    state_factors: tuple[float, ...] = (0.5, 3.0)
    """`modulated`: a model's rate in each state, in proportion; its mean stays what it is."""
    path: str = ""
    """Folder of the 2019 files, the 2021 file, or one's own CSV; empty: a made-up stand-in."""
    start: str = "0.0.0"
    """Where the slice of a trace begins, as day.hour.minute; day 0 first."""
    end: str = "0.1.0"
    """Where it ends."""
    rate_scale: float = 1.0
    """A trace's rates are multiplied by it."""
    cv_scale: float = 1.0
    """azure2019: coefficient of variation of the gaps; azure2021: factor on the fitted one."""
    window_s: float = 60.0
    """A trace's rate and burstiness are fitted per window of so many seconds."""
    mapping: Mapping = "stripe"
    """Which functions of a trace make a model: in turn, or in blocks."""
    gaps: Gaps = "gamma"
    """How a trace's windows are replayed: drawn anew, or the stamps of azure2021 as recorded."""
    time_scale: float = 1.0
    """`recorded`: times are divided by it."""
    copies: int = 1
    """`recorded`: each request comes so many times."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        positive = (
            "cv",
            "duration_s",
            "rate_scale",
            "cv_scale",
            "window_s",
            "time_scale",
            "copies",
        )
        for field in positive:
            value = getattr(self, field)
            if not 0 < value < math.inf:
                raise InputError(f"traffic.{field} is {value}, expected a positive number")
        if not 0 <= self.rate <= MOST_RATE:
            raise InputError(
                f"traffic.rate is {self.rate}, expected 0 or more, at most {MOST_RATE:g}"
            )
        if self.gaps == "recorded" and self.source == "azure2019":
            raise InputError("traffic.gaps 'recorded' needs time stamps; azure2019 only has counts")
        states = (*self.state_s, *self.state_factors)
        if len(self.state_s) != len(self.state_factors) or len(states) < 4 or min(states) <= 0:
            raise InputError(
                "traffic: state_s and state_factors need a positive number for each of two or more"
                " states"
            )
        if self.source == "requests" and not self.path:
            raise InputError("traffic.source 'requests' needs traffic.path, a CSV arrival_s,model")

    @property
    def is_trace(self) -> bool:
        """Whether it replays one of Azure's traces."""
        return self.source in _TRACES

    @property
    def is_stand_in(self) -> bool:
        """Whether the trace is made up here because none was given."""
        return self.is_trace and not self.path


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a method may look at."""

    on: Literal["same", "drawn", "slice", "first"] = "drawn"
    """The test workload itself (as in the paper's end-to-end figures), about 30,000 requests drawn
    from the same rates and burstiness, another slice of the trace, or the first share of the test
    workload."""
    seed: int = 0
    """`drawn`: model i draws from seed + i."""
    start: str = "0.0.0"
    """`slice`: where it begins, as day.hour.minute."""
    end: str = "0.1.0"
    """`slice`: where it ends."""
    share: float = 1.0
    """`first`, and one's own log: how much of the test workload, above 0 and up to 1."""

    def __post_init__(self) -> None:
        """Refuse a share out of range."""
        if not 0 < self.share <= 1:
            raise InputError(f"training.share is {self.share}, expected above 0 and up to 1")
