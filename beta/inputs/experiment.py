"""One placement question as a value: what a named experiment holds and what a user's TOML says."""

import math
import re

import msgspec

from beta.inputs.cluster import GIB, Cluster
from beta.inputs.playing import SimulatorSettings
from beta.inputs.serving import MeasureSettings, ServeSettings
from beta.inputs.shapes import Shape
from beta.inputs.traffic import MOST_RATE, Traffic, Training
from beta.plan.switches import Mode, resolve
from common.artifact import Case
from common.devices import find
from common.errors import InputError
from common.record import Axis

V100 = "v100"
MACHINE = "machine"
LARGE = "bert-103.5b"
DAY_S = 86_400.0
MEMORY_SHARE = 0.9
"""Of a device's memory that weights may fill where nothing else is said."""
MOST_DEVICES, MOST_MODELS = 4096, 4096
"""More are not planned in minutes."""


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Equal devices; `memory_gib` is what weights may fill on each."""

    devices: int
    """How many there are."""
    device: str = ""
    """What they are by the data sheet, such as H100: models come with an analytic profile for it;
    empty: what `profile` was measured on."""
    memory_gib: float | None = None
    """What weights may fill on each, GiB; none: 0.9 of the device's, or 13, which is what the paper
    leaves of a V100's 16 GB."""
    devices_per_node: int = 8
    """Groups larger than a node are whole nodes."""

    def __post_init__(self) -> None:
        """Refuse sizes that are not positive, and more devices than can be planned for."""
        self.cluster()
        if self.devices > MOST_DEVICES:
            raise InputError(
                f"cluster.devices is {self.devices}, expected at most {MOST_DEVICES}; plan for a"
                " part of them with a part of the traffic"
            )

    @property
    def budget_gib(self) -> float:
        """What weights may fill on each device, GiB."""
        if self.memory_gib is not None:
            return self.memory_gib
        return MEMORY_SHARE * find(self.device).memory_gb * 1e9 / GIB if self.device else 13.0

    def cluster(self) -> Cluster:
        """Return the cluster."""
        return Cluster(
            devices=self.devices,
            memory_bytes=self.budget_gib * GIB,
            devices_per_node=self.devices_per_node,
        )


class ModelSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Model instances: `count` of them, of the profiled `types` in turn."""

    types: tuple[str, ...] = ()
    """Models of the profile, such as ["bert-1.3b"]; a wrong one is answered with all."""
    config: str = ""
    """In place of `types`: a model's config.json, its folder, or a name of the catalogue, such as
    Llama-3.1-8B; its profile is computed (`cluster.device`)."""
    sequence: int = 2048
    """Tokens of a request to such a model: one pass over them, no decoding."""
    count: int = 1
    """Instances, of the types in turn."""
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
    """Even pipelines (op 1) whose stages together take so many times the latency on one device
    replace the profile's; none: as profiled."""

    def __post_init__(self) -> None:
        """Refuse empty lists, two targets and names that do not fit."""
        if bool(self.types) == bool(self.config) or min(self.count, self.sequence) < 1:
            raise InputError(
                "models: expected one or more types, or a config in their place, and a count and"
                " sequence of 1 or more"
            )
        if self.names and len(self.names) != self.count:
            raise InputError(f"models: {len(self.names)} names for {self.count} instances")
        if self.slo_scale is not None and self.slo_s is not None:
            raise InputError("models: give slo_scale or slo_s, not both")
        for field in ("slo_scale", "slo_s", "rate", "cv", "overhead"):
            value = getattr(self, field)
            limit = math.inf if field.startswith("slo") else MOST_RATE
            if value is not None and not 0 < value <= limit:
                raise InputError(f"models.{field} is {value}, expected a positive number")


class PlacementSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to place. `mode` sets all switches, `switches` changes single ones."""

    method: str = "best"
    """How to place: the best of all, or one such as mp-search, mp-greedy-4, sr-greedy; a wrong one
    is answered with all."""
    mode: Mode = "strict"
    """compat: with all defects of the original, as its figures are; strict: with none."""
    switches: dict[str, bool] = {}
    """Single defects kept (true) or mended, by name; a wrong name is answered with all."""
    time_limit_s: float = 2.0
    """Seconds for each integer program, evolutionary and local search, up to a day: as much as a
    core does in them, counted, so that an answer does not depend on the machine."""
    load_gib_s: float = 8.0
    """How fast a device loads weights when mp-replan changes models, GiB/s (assumed)."""
    bound: bool = False
    """Whether points of figures also tell the bound that no placement passes."""

    def __post_init__(self) -> None:
        """Refuse unknown switches."""
        resolve(self.mode, self.switches)
        for field in ("time_limit_s", "load_gib_s"):
            limit = DAY_S if field == "time_limit_s" else math.inf
            if not 0 < getattr(self, field) <= limit:
                raise InputError(
                    f"placement.{field} is {getattr(self, field)}, expected a positive number, at"
                    f" most {limit:g}"
                )


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A placement question: models, cluster, profile, traffic; how to place and how to play."""

    name: str
    """Names the files of its plans and profiles: letters, digits, '.', '_', '-'."""
    about: str = ""
    """A sentence for `list`."""
    cluster: ClusterSettings
    """Equal devices that models are placed on."""
    models: tuple[ModelSettings, ...]
    """What is served: each entry is one or more instances."""
    profile: str = V100
    """Stage latencies and weights: `v100` (shipped), `machine` (measured here, once), or the path
    of a CSV of our format or of the original's TSV."""
    traffic: Traffic = Traffic()
    """What is asked of the models; every test and training workload comes from it."""
    training: Training = Training()
    """What a method may look at."""
    placement: PlacementSettings = PlacementSettings()
    """How to place."""
    simulator: SimulatorSettings = SimulatorSettings()
    """How a placement is played on the test workload; placing always uses the fast simulator."""
    shapes: dict[str, Shape] = {}
    """What models of a type are made of, for `profile` and `run`, as [shapes.TYPE]; the paper's are
    known."""
    measure: MeasureSettings = MeasureSettings()
    """What `profile` measures."""
    serve: ServeSettings = ServeSettings()
    """How `run` serves, and the load that is put on it."""

    def __post_init__(self) -> None:
        """Refuse a name that cannot name files, and traffic that says nothing."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(
                f"name is {self.name!r}, expected letters, digits, '.', '_' or '-' (it names files)"
            )
        if not self.models:
            raise InputError("models: expected one or more entries")
        if (count := sum(entry.count for entry in self.models)) > MOST_MODELS:
            raise InputError(
                f"models: {count} instances, expected at most {MOST_MODELS}; plan for a part of"
                " them on a part of the devices"
            )
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


def axes(case: Case) -> dict[str, Axis]:
    """Return what tables select records by, beside verb and method."""
    experiment: Experiment = case.experiment
    found: dict[str, Axis] = {
        "mode": experiment.placement.mode,
        "simulator": experiment.simulator.kind,
        "dispatch": experiment.simulator.dispatch,
        "stand_in": experiment.stand_in,
    }
    return found | {"stages": experiment.serve.stages} if case.verb == "run" else found
