"""One planning question as a value: what a named experiment holds and what a user's TOML says."""

import re
from math import inf
from pathlib import Path
from typing import Literal

import msgspec

from common.errors import InputError
from metis.inputs.cluster import Cluster, NodeGroup, known_devices
from metis.inputs.hostfile import read_cluster
from metis.inputs.model import Model
from metis.inputs.profile import ProfileKey, Profiles, read_profiles
from metis.inputs.synth import MEASURED, MemoryTable, synthesize
from metis.plan.switches import Mode, resolve

Method = Literal["metis", "stratified", "optimal", "wider", "uniform"]

SYNTHETIC, MEASURE = "synthetic", "measure"

_KEY = re.compile(r"^(\w+)_tp(\d+)_bs(\d+)$")


class ClusterSource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The cluster: `[[cluster.nodes]]`, or the original's hostfile and clusterfile."""

    nodes: tuple[NodeGroup, ...] = ()
    hostfile: str = ""
    clusterfile: str = ""

    def __post_init__(self) -> None:
        """Refuse both or neither."""
        files = bool(self.hostfile) + bool(self.clusterfile)
        if files == 1 or bool(files) == bool(self.nodes):
            raise InputError(
                "cluster: expected either [[cluster.nodes]] or both cluster.hostfile and"
                " cluster.clusterfile"
            )

    def load(self, *, first_digit_slots: bool) -> Cluster:
        """Return the cluster, read from the files if it is given by them."""
        if self.nodes:
            return Cluster(nodes=self.nodes)
        return read_cluster(
            Path(self.hostfile), Path(self.clusterfile), first_digit_slots=first_digit_slots
        )


class ProfileSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where layer times and memory come from.

    `source` is "synthetic" (the published A100 measurements of one GPT, stretched), "measure"
    (this machine, by the verb profile) or a folder of upstream profile files.
    """

    source: str = SYNTHETIC
    max_tp: int = MEASURED[-1]
    """Largest tensor degree of the synthetic or measured profile."""
    max_batch_size: int = 32
    memory: MemoryTable = "measured"
    """Synthetic only: "flat" is the CS598 artifact's table, "measured" upstream's later one."""
    time_scale: dict[str, float] = {}
    """Synthetic only: time of a device type relative to the A100; else the device table's."""

    device: str = ""
    """Type that the verb profile records this machine's devices as; empty: the cluster's only."""

    def __post_init__(self) -> None:
        """Refuse limits below 1 and scales that are not positive."""
        for field in ("max_tp", "max_batch_size"):
            if getattr(self, field) < 1:
                raise InputError(f"profile.{field} is {getattr(self, field)}, expected 1 or more")
        for device, scale in self.time_scale.items():
            if not 0 < scale < inf:
                raise InputError(
                    f"profile.time_scale.{device} is {scale}, expected a positive number"
                )


class SearchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to search. `mode` sets all switches, `switches` changes single ones."""

    method: Method = "optimal"
    mode: Mode = "strict"
    switches: dict[str, bool] = {}
    node_sequence: tuple[str, ...] = ()
    """Device types in the order from which node sequences are permuted; empty: as they appear."""
    first_profile: str = ""
    """compat: the profile that the original reads first, such as "A100_tp1_bs1"."""
    max_tp: int | None = None
    max_batch_size: int | None = None
    group_variance: float = 1.0
    """Smallest device group, as a multiple of an equal split; lower allows unlike groups."""
    max_permute_len: int = 128
    """Units that are permuted; more are merged (methods metis and stratified)."""
    memory_fraction: float = 0.9
    """strict: usable part of a device's memory."""
    time_limit_s: float = 60.0
    """optimal and wider: stop then and say what is proven."""
    bound_time_s: float = 10.0
    """optimal: time for the lower bound of the wider space."""
    gap: float = 0.002
    """optimal: stop when the plan is within this fraction of that bound."""
    trials: int = 1
    """metis and stratified: times the search is repeated to time it."""

    def __post_init__(self) -> None:
        """Refuse unknown switches and limits out of range."""
        resolve(self.mode, self.switches)
        self.first_key()
        if not 0 <= self.gap < 1:
            raise InputError(f"search.gap is {self.gap}, expected 0 or more and below 1")
        if not 0 <= self.group_variance <= 1:
            raise InputError(
                f"search.group_variance is {self.group_variance}, expected 0 to 1 (above 1 no"
                " device groups are left)"
            )
        for field in ("max_permute_len", "trials", "max_tp", "max_batch_size"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise InputError(f"search.{field} is {value}, expected 1 or more")
        if not 0 < self.memory_fraction <= 1:
            raise InputError(
                f"search.memory_fraction is {self.memory_fraction}, expected above 0 and at most 1"
            )
        for field in ("time_limit_s", "bound_time_s"):
            if not getattr(self, field) > 0:
                raise InputError(
                    f"search.{field} is {getattr(self, field)}, expected a positive number"
                )

    def first_key(self) -> ProfileKey | None:
        """Return the first profile as a key, None if none is named."""
        if not self.first_profile:
            return None
        match = _KEY.match(self.first_profile)
        if not match:
            raise InputError(
                f"search.first_profile is {self.first_profile!r}, expected a form like A100_tp1_bs1"
            )
        return ProfileKey(match[1], int(match[2]), int(match[3]))


class TrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the verb run trains."""

    steps: int = 5
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    learning_rate: float = 1e-3
    tokens: str = ""
    """A .npy file of token ids; empty: synthetic tokens by seed."""
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        """Refuse no steps and figures that are not positive."""
        if self.steps < 1:
            raise InputError(f"training.steps is {self.steps}, expected 1 or more")
        for field in ("learning_rate", "timeout_s"):
            value = getattr(self, field)
            if not 0 < value < inf:
                raise InputError(f"training.{field} is {value}, expected a positive number")


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A planning question: model, cluster, profile and how to search; and how to train."""

    name: str
    about: str = ""
    model: Model
    cluster: ClusterSource
    profile: ProfileSource = ProfileSource()
    search: SearchSettings = SearchSettings()
    training: TrainingSettings = TrainingSettings()

    def __post_init__(self) -> None:
        """Refuse a name that cannot name files."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(
                f"name is {self.name!r}, expected letters, digits, '.', '_' or '-' (it names files)"
            )

    def load_cluster(self) -> Cluster:
        """Return the cluster."""
        compat = resolve(self.search.mode, self.search.switches).powers_of_two_only
        return self.cluster.load(first_digit_slots=compat)

    def load_profiles(self, cluster: Cluster, measured: Path) -> Profiles:
        """Return the profiles; `measured` is the folder where the verb profile leaves its files."""
        first = self.search.first_key()
        if self.profile.source == SYNTHETIC:
            return synthesize(
                self.model.layers,
                max_tp=self.profile.max_tp,
                max_batch_size=self.profile.max_batch_size,
                time_scale=self._time_scale(cluster),
                memory=self.profile.memory,
                first=first,
            )
        folder = measured if self.profile.source == MEASURE else Path(self.profile.source)
        return read_profiles(folder, layers=self.model.layers, first=first)

    def _time_scale(self, cluster: Cluster) -> dict[str, float]:
        scale = dict(self.profile.time_scale)
        for device in cluster.device_types():
            if device not in scale:
                facts = known_devices().get(device)
                if facts is None:
                    raise InputError(
                        f"the synthetic profile knows no {device!r}; write"
                        f" profile.time_scale.{device} (time relative to an A100) or give measured"
                        " profiles in profile.source"
                    )
                scale[device] = facts.time_scale
        return scale
