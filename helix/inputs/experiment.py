"""One serving question as a value: what a named experiment holds and what a user's TOML says."""

import math
import re
from pathlib import Path
from typing import Literal

import msgspec

from common.errors import InputError
from helix.inputs.cluster import Cluster
from helix.inputs.cluster_source import ClusterSource
from helix.inputs.model import Model, known_models
from helix.inputs.profile import Profiles, read_profiles, shipped_profiles
from helix.inputs.roofline import Gpu, Shape, known_gpus, roofline
from helix.inputs.serving import ServeSettings

Method = Literal[
    "search", "milp", "position", "petals", "swarm", "separate", "homogeneous", "published"
]
Objective = Literal["simulated", "latency-flow", "flow"]
Scheduler = Literal["maxflow", "swarm", "random", "shortest_queue"]
Fault = Literal["doubled_single_decode", "receiver_free_while_arriving", "shuffled_trace"]

MEASURED, ROOFLINE, HERE = "measured", "roofline", "here"


class ModelSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The served model: a shipped one by name, or its layers and their shape."""

    name: str = ""
    layers: int = 0
    shape: Shape | None = None

    def __post_init__(self) -> None:
        """Refuse unknown names and models without layers."""
        if self.shape is None and self.name not in known_models():
            raise InputError(
                f"model.name is {self.name!r}, expected one of {', '.join(known_models())}, or"
                " give model.layers and [model.shape]"
            )
        if self.shape is not None and self.layers < 1:
            raise InputError(f"model.layers is {self.layers}, expected 1 or more")

    def load(self) -> Model:
        """Return the model."""
        if self.shape is None:
            return known_models()[self.name]
        return Model(
            layers=self.layers,
            layer_bytes=self.shape.layer_bytes,
            activation_bytes=self.shape.hidden_size * self.shape.value_bytes,
        )


class KindSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine kind of one's own: `gpus` times a known or given GPU, or this machine, played.

    The first three are for roofline profiles, the others for profiles measured on this machine.
    """

    gpu: str = ""
    gpus: int = 1
    peaks: Gpu | None = None
    slower: float = 1.0
    """It takes so many times as long as this machine."""
    memory_gb: float = 0.0
    """Its memory; 0: this machine's."""
    most_layers: int = 0
    """It holds no more layers; 0: as many as the memory allows."""

    def __post_init__(self) -> None:
        """Refuse figures that no machine has."""
        if not 0 < self.slower < math.inf:
            raise InputError(f"profile.kinds: slower is {self.slower}, expected above 0")
        for field in ("memory_gb", "most_layers"):
            if not 0 <= getattr(self, field) < math.inf:
                raise InputError(
                    f"profile.kinds: {field} is {getattr(self, field)}, expected 0 or more"
                )

    def load(self, kind: str) -> tuple[Gpu, int]:
        """Return the GPU and how many."""
        if self.gpus < 1:
            raise InputError(f"profile.kinds.{kind}.gpus is {self.gpus}, expected 1 or more")
        if self.peaks is not None:
            return self.peaks, self.gpus
        name = self.gpu or kind
        if name not in known_gpus():
            raise InputError(
                f"no GPU {name!r}; known are {', '.join(known_gpus())}; or give its data-sheet"
                f" figures in [profile.kinds.{kind}.peaks]"
            )
        return known_gpus()[name], self.gpus


class ProfileSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where layer times and limits come from.

    `source` is "measured" (the artifact's measurements of its two models on its seven kinds),
    "roofline" (from data sheets, for any model of known shape), "here" (measured on this machine
    when it is first needed, as the verb profile does) or a folder of profile files.
    """

    source: str = MEASURED
    kinds: dict[str, KindSource] = {}


class SearchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to place the layers."""

    method: Method = "search"
    objective: Objective = "simulated"
    published: str = ""
    """published: the placement's name in helix/data/placements.json; separate: in separate.toml."""
    calibration: str = ""
    """separate, published: the cluster whose KV capacities are taken; empty: its own."""
    stages: int = 0
    """swarm: how many stages; 0: the most that its rule allows."""
    split: Literal["least-latency", "original"] = "least-latency"
    """Which of several maximum flows sets the routing weights; original: networkx's, as there."""
    partial: bool = False
    """Let work enter a machine in the middle of its layers."""
    chains: int = 12
    """search: independent annealing chains."""
    evaluations: int = 250_000
    """search: placements that each chain evaluates."""
    simulations: int = 240
    """search, simulated: placements that are simulated."""
    time_limit_s: float = 300.0
    """Stop then with the best so far; what a budget finds is the same every time, a time is not."""
    workers: int = 0
    """Threads; 0: one per core."""
    solver: Literal["highs", "gurobi"] = "highs"
    start: Literal["petals", "swarm", "none"] = "petals"
    """milp: the placement that the solver begins from."""
    keep_links: int = 0
    """milp: links per machine after pruning; 0: all."""
    cap: bool = True
    """milp: cut off what the machines cannot compute; the original's problem has no such rows."""

    def __post_init__(self) -> None:
        """Refuse budgets out of range."""
        for field in ("chains", "evaluations"):
            if getattr(self, field) < 1:
                raise InputError(f"search.{field} is {getattr(self, field)}, expected 1 or more")
        for field in ("stages", "simulations", "workers", "keep_links"):
            if getattr(self, field) < 0:
                raise InputError(f"search.{field} is {getattr(self, field)}, expected 0 or more")
        if not self.time_limit_s > 0:
            raise InputError(f"search.time_limit_s is {self.time_limit_s}, expected above 0")


class WorkloadSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of the service; numbers may be given by service (the plan's names)."""

    mode: Literal["offline", "online"] = "offline"
    scheduler: Scheduler = "maxflow"
    initial: int | dict[str, int] = 20
    """offline: queries at the start, and for other schedulers than maxflow all the time."""
    tokens_per_s: float | dict[str, float] = 100.0
    """online: prompt and answer tokens offered per second on average."""
    trace: str = ""
    """online: a CSV of arrivals of one's own instead; see helix/README.md."""
    duration_s: float = 600.0
    warm_up_s: float = 60.0
    timeline_s: float = 0.0
    """Write what happens in the first so many seconds, to be opened in Perfetto."""
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
        if not 0 <= self.timeline_s < math.inf:
            raise InputError(f"workload.timeline_s is {self.timeline_s}, expected 0 or more")
        if not (0 < self.duration_s < math.inf and 0 <= self.warm_up_s < math.inf):
            raise InputError(
                f"workload: duration_s {self.duration_s} and warm_up_s {self.warm_up_s}, expected"
                " above 0 and 0 or more, both finite"
            )


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A serving question: model, cluster, profile, how to place, and what is asked."""

    name: str
    about: str = ""
    model: ModelSource
    cluster: ClusterSource
    profile: ProfileSource = ProfileSource()
    search: SearchSettings = SearchSettings()
    workload: WorkloadSettings = WorkloadSettings()
    serve: ServeSettings = ServeSettings()
    sweep: dict[str, tuple[int | float | str | bool, ...]] = {}
    """Fields and the values to simulate, all combinations: `"workload.tokens_per_s" = [100, 200]`;
    the field `seed` is the seed."""

    def __post_init__(self) -> None:
        """Refuse a name that cannot name files."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(
                f"name is {self.name!r}, expected letters, digits, '.', '_' or '-' (it names files)"
            )

    def load_profiles(self, cluster: Cluster) -> Profiles:
        """Return the profiles of the cluster's machine kinds."""
        kinds = cluster.kind_counts()
        if self.profile.source == ROOFLINE:
            if self.model.shape is None:
                raise InputError("profile.source is 'roofline', which needs [model.shape]")
            pairs = {k: self.profile.kinds.get(k, KindSource()).load(k) for k in kinds}
            return {kind: roofline(self.model.shape, *pair) for kind, pair in pairs.items()}
        if self.profile.source == HERE:
            raise InputError("profile.source is 'here', and nothing was measured here yet")
        if self.profile.source != MEASURED:
            profiles = read_profiles(Path(self.profile.source))
        elif self.model.shape is None:
            profiles = shipped_profiles(self.model.name)
        else:
            raise InputError(
                "profile.source is 'measured', but a model given by its shape has none; set"
                " profile.source to 'roofline' or to a folder of measured profiles"
            )
        for kind in kinds:
            if kind not in profiles:
                raise InputError(
                    f"machine kind {kind!r} has no profile; known are {', '.join(profiles)}"
                )
        return profiles
