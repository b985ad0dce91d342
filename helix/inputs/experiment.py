"""One serving question as a value: what a named experiment holds and what a user's TOML says."""

import math
import re
from pathlib import Path
from typing import Any

import msgspec

from common.artifact import Case
from common.devices import Device, find
from common.errors import InputError
from common.record import Axis
from helix.inputs.cluster import Cluster
from helix.inputs.cluster_source import ClusterSource
from helix.inputs.model_source import ModelSource
from helix.inputs.profile import Profiles, read_profiles, shipped_profiles
from helix.inputs.roofline import Efficiency, Gpu, gpu_of, roofline
from helix.inputs.search import SearchSettings
from helix.inputs.serving import ServeSettings
from helix.inputs.workload import WorkloadSettings

MEASURED, ROOFLINE, HERE = "measured", "roofline", "here"


class KindSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine kind of one's own: `gpus` times a known or given GPU, or this machine, played.

    The first three are for roofline profiles, `slower` for profiles measured on this machine.
    """

    gpu: str | dict[str, Any] = ""
    """roofline: its GPU by the device sheet (common/devices.toml), or one's own written as a table
    of the same words; empty: the kind's own name."""
    gpus: int = 1
    """roofline: GPUs in the machine, which compute together (tensor parallelism)."""
    peaks: Gpu | None = None
    """roofline: the three figures of a GPU that count, in place of `gpu`."""
    slower: float = 1.0
    """here: it takes so many times as long as this machine."""
    memory_gb: float = 0.0
    """Its memory in GB, all GPUs together; 0: as the data sheet says, or this machine's (here)."""
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

    def load(self, kind: str, dtype: str) -> tuple[Gpu, int]:
        """Return the GPU, with its peak in that dtype, and how many."""
        if self.gpus < 1:
            raise InputError(f"profile.kinds.{kind}.gpus is {self.gpus}, expected 1 or more")
        if self.slower != 1.0:
            raise InputError(
                f"profile.kinds.{kind}.slower is for profile.source 'here'; a roofline's speed is"
                " set by peaks or profile.efficiency"
            )
        if self.peaks is not None:
            found = self.peaks
        else:
            try:
                own = self.gpu if isinstance(self.gpu, str) else msgspec.convert(self.gpu, Device)
                found = gpu_of(find(own or kind), dtype)
            except (InputError, msgspec.ValidationError) as error:
                raise InputError(f"profile.kinds.{kind}.gpu: {error}") from error
        if self.memory_gb:
            found = msgspec.structs.replace(found, memory_gb=self.memory_gb / self.gpus)
        return found, self.gpus


class ProfileSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where layer times and limits come from."""

    source: str = MEASURED
    """measured (the artifact's two models on its seven kinds of machines), roofline (from data
    sheets, for any model of known shape), here (measured on this machine when it is first needed,
    as the verb profile does) or a folder with times.csv and limits.csv."""
    kinds: dict[str, KindSource] = {}
    """By machine kind: what it consists of (roofline), or how it is played (here)."""
    memory_fraction: float = 0.9
    """roofline, here: share of a machine's memory for weights, then KV cache; the rest is kept for
    the driver's context, activations and buffers of messages."""
    efficiency: Efficiency = Efficiency()
    """roofline: what is attained of data-sheet peaks."""

    def __post_init__(self) -> None:
        """Refuse what is no share of a memory."""
        if not 0 < self.memory_fraction <= 1:
            raise InputError(
                f"profile.memory_fraction is {self.memory_fraction}, expected above 0 and at most 1"
            )


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A serving question: model, cluster, profile, how to place, and what is asked."""

    name: str
    """Names files and records: letters, digits, '.', '_' and '-'."""
    about: str = ""
    """What it asks, in a line."""
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
            return self._analytic(list(kinds))
        if self.profile.source == HERE:
            raise InputError("profile.source is 'here', and nothing was measured here yet")
        if self.profile.source != MEASURED:
            profiles = read_profiles(Path(self.profile.source))
        elif not self.model.config and self.model.shape is None:
            profiles = shipped_profiles(self.model.name)
        else:
            raise InputError(
                "profile.source is 'measured', but this model has none; set"
                " profile.source to 'roofline' or to a folder of measured profiles"
            )
        for kind in kinds:
            if kind not in profiles:
                raise InputError(
                    f"machine kind {kind!r} has no profile; known are {', '.join(profiles)}"
                )
        return profiles

    def _analytic(self, kinds: list[str]) -> Profiles:
        """Return profiles by data sheets."""
        layer, profile = self.model.layer(), self.profile
        if layer is None:
            raise InputError(
                "profile.source is 'roofline', which needs model.config or [model.shape]"
            )
        found: Profiles = {}
        for kind in kinds:
            own = profile.kinds.get(kind, KindSource())
            made = roofline(
                layer, *own.load(kind, layer.dtype), profile.efficiency, profile.memory_fraction
            )
            limits = made.limits[: own.most_layers or None]
            found[kind] = msgspec.structs.replace(made, limits=limits)
        return found


def checked(experiment: Experiment) -> Experiment:
    """Return the experiment; raises InputError where cluster, profiles or trace are not there."""
    cluster, trace = experiment.cluster.load(), experiment.workload.trace
    if trace and not Path(trace).is_file():
        raise InputError(f"workload.trace: {trace}: there is no such file")
    if experiment.profile.source != HERE:
        experiment.load_profiles(cluster)
    return experiment


def axes(case: Case) -> dict[str, Axis]:
    """Return what tables select records by, beside verb and method."""
    search, workload = case.experiment.search, case.experiment.workload
    return {
        "objective": search.objective if search.method in ("portfolio", "search") else "",
        "scheduler": workload.scheduler,
        "mode": workload.mode,
        "compat": workload.compat,
    }
