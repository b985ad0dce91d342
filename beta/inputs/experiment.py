"""One placement question as a value: what a named experiment holds and what a user's TOML says."""

import math
import re
from typing import Literal

import msgspec

from beta.inputs.cluster import GIB, Cluster
from beta.inputs.playing import SimulatorSettings
from beta.inputs.replay import Gaps, Mapping
from beta.inputs.serving import MeasureSettings, ServeSettings
from beta.inputs.shapes import Shape
from beta.plan.switches import Mode, resolve
from common.errors import InputError

Source = Literal["gamma", "deterministic", "modulated", "azure2019", "azure2021", "requests"]
V100 = "v100"
MACHINE = "machine"

MOST_RATE = 1e6
"""Requests/s (and CV) above which a number is taken for a mistake."""
_TRACES = ("azure2019", "azure2021")


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Equal devices; `memory_gib` is what weights may fill on each."""

    devices: int
    memory_gib: float = 13.0
    devices_per_node: int = 8

    def __post_init__(self) -> None:
        """Refuse sizes that are not positive."""
        self.cluster()

    def cluster(self) -> Cluster:
        """Return the cluster."""
        return Cluster(
            devices=self.devices,
            memory_bytes=self.memory_gib * GIB,
            devices_per_node=self.devices_per_node,
        )


class ModelSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Model instances: `count` of them, of the profiled `types` in turn."""

    types: tuple[str, ...]
    count: int = 1
    names: tuple[str, ...] = ()
    """One per instance; empty: `<type>-<number>`."""
    slo_scale: float | None = None
    """Latency target as a multiple of the latency on one device."""
    slo_s: float | None = None
    """Latency target in seconds; neither: none."""
    rate: float | None = None
    """Requests/s of each instance; none: its share of `traffic.rate`."""
    cv: float | None = None
    """Coefficient of variation of the gaps; none: `traffic.cv`."""
    overhead: float | None = None
    """Put even pipelines whose stages together take so many times the latency on one device in
    place of the profile's (op 1); none: as profiled."""

    def __post_init__(self) -> None:
        """Refuse empty lists, two targets and names that do not fit."""
        if not self.types or self.count < 1:
            raise InputError("models: expected one or more types and a count of 1 or more")
        if self.names and len(self.names) != self.count:
            raise InputError(f"models: {len(self.names)} names for {self.count} instances")
        if self.slo_scale is not None and self.slo_s is not None:
            raise InputError("models: give slo_scale or slo_s, not both")
        for field in ("slo_scale", "slo_s", "rate", "cv", "overhead"):
            value = getattr(self, field)
            limit = math.inf if field.startswith("slo") else MOST_RATE
            if value is not None and not 0 < value <= limit:
                raise InputError(f"models.{field} is {value}, expected a positive number")


class Traffic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of the models; every test and training workload comes from it.

    `gamma`, `deterministic` and `modulated` (Poisson whose rate jumps) are drawn; `azure2019` and
    `azure2021` replay a slice of a trace (`path` empty: a stand-in made up here); `requests` is a
    CSV `arrival_s,model` of one's own.
    """

    source: Source = "gamma"
    rate: float = 0.0
    """Requests/s of all models together (drawn sources)."""
    distribution: Literal["uniform", "power_law", "triangle_decay"] = "power_law"
    cv: float = 1.0
    duration_s: float = 200.0
    state_s: tuple[float, ...] = (20.0, 5.0)
    """`modulated`: how long each state lasts on average."""
    state_factors: tuple[float, ...] = (0.5, 3.0)
    """`modulated`: a model's rate in each state, in proportion; its mean stays what it is."""
    path: str = ""
    """Folder of the 2019 files, the 2021 file, or one's own CSV."""
    start: str = "0.0.0"
    """Slice of a trace as day.hour.minute."""
    end: str = "0.1.0"
    rate_scale: float = 1.0
    cv_scale: float = 1.0
    window_s: float = 60.0
    """A trace's rate and burstiness are fitted per window."""
    mapping: Mapping = "stripe"
    gaps: Gaps = "gamma"
    """How a trace's windows are replayed; `recorded` takes the stamps of azure2021 as they are."""
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
    """What a method may look at.

    `same`: the test workload itself, as in the paper's end-to-end figures. `drawn`: about 30,000
    requests drawn from the same rates and burstiness, model i with `seed` + i. `slice`: another
    slice of the trace. `first`: the first `share` of the test workload.
    """

    on: Literal["same", "drawn", "slice", "first"] = "drawn"
    seed: int = 0
    start: str = "0.0.0"
    end: str = "0.1.0"
    share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a share out of range."""
        if not 0 < self.share <= 1:
            raise InputError(f"training.share is {self.share}, expected above 0 and up to 1")


class PlacementSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to place. `mode` sets all switches, `switches` changes single ones."""

    method: str = "mp-search-sep"
    mode: Mode = "strict"
    switches: dict[str, bool] = {}
    time_limit_s: float = 30.0
    """Of integer programs and of mp-improve."""
    load_gib_s: float = 8.0
    """How fast a device loads weights when mp-replan changes models (assumed)."""
    bound: bool = False
    """Whether points of figures also tell the bound that no placement passes."""

    def __post_init__(self) -> None:
        """Refuse unknown switches."""
        resolve(self.mode, self.switches)
        for field in ("time_limit_s", "load_gib_s"):
            if not getattr(self, field) > 0:
                raise InputError(
                    f"placement.{field} is {getattr(self, field)}, expected a positive number"
                )


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A placement question: models, cluster, profile, traffic; how to place and how to play."""

    name: str
    about: str = ""
    cluster: ClusterSettings
    models: tuple[ModelSettings, ...]
    profile: str = V100
    """`v100` (shipped), `machine` (measured here, once), or the path of a CSV of our format or of
    the original's TSV."""
    traffic: Traffic = Traffic()
    training: Training = Training()
    placement: PlacementSettings = PlacementSettings()
    simulator: SimulatorSettings = SimulatorSettings()
    shapes: dict[str, Shape] = {}
    """What models of a type are made of, for `profile` and `run`; the paper's are known."""
    measure: MeasureSettings = MeasureSettings()
    serve: ServeSettings = ServeSettings()

    def __post_init__(self) -> None:
        """Refuse a name that cannot name files, and traffic that says nothing."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(
                f"name is {self.name!r}, expected letters, digits, '.', '_' or '-' (it names files)"
            )
        if not self.models:
            raise InputError("models: expected one or more entries")
        own = [models.rate is not None for models in self.models]
        if any(own) and not all(own):
            raise InputError("models: give every entry a rate, or none and traffic.rate")
        drawn = self.traffic.source in ("gamma", "deterministic", "modulated")
        if drawn and not any(own) and not self.traffic.rate > 0:
            raise InputError("traffic.rate: expected a positive rate, or a rate of every model")
        if self.training.on == "slice" and not self.traffic.is_trace:
            raise InputError("training.on 'slice' needs a trace in traffic.source")

    @property
    def stand_in(self) -> bool:
        """Whether something about it is made up here in place of what was not published."""
        large = any(LARGE in models.types for models in self.models)
        return self.traffic.is_stand_in or (large and self.profile == V100)


LARGE = "bert-103.5b"
