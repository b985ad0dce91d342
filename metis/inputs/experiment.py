"""One planning question as a value: what a named experiment holds and what a user's TOML says."""

import logging
import re
from math import inf
from pathlib import Path
from typing import Literal

import msgspec

from common import devices
from common.artifact import Case
from common.errors import InputError
from common.record import Axis
from metis.inputs.analytic import MB, Dtype, Efficiency, Machine, analytic, kept_bytes
from metis.inputs.cluster import Cluster, NodeGroup, known_devices
from metis.inputs.hostfile import read_cluster
from metis.inputs.model import GPT, Model
from metis.inputs.profile import ProfileKey, Profiles, read_profiles
from metis.inputs.savings import NO_SAVERS, RECOMPUTES, Recompute, Savers, Savings
from metis.inputs.synth import MEASURED, MemoryTable, synthesize
from metis.plan.switches import Mode, of_mode, resolve

Method = Literal["metis", "stratified", "optimal", "walks", "wider", "uniform"]

PUBLISHED: tuple[Method, ...] = ("metis", "stratified", "walks")
"""Those that search the paper's space, without recomputation and sharded optimizer."""

AUTO, SYNTHETIC, ANALYTIC, MEASURE = "auto", "synthetic", "analytic", "measure"

MEASURED_LENGTH = 1024
"""Tokens a sample of the GPT that the synthetic profile was measured for; its sizes are `GPT`."""

log = logging.getLogger("metis")

_KEY = re.compile(r"^(\w+)_tp(\d+)_bs(\d+)$")


class ClusterSource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The cluster: `[[cluster.nodes]]`, or the original's hostfile and clusterfile."""

    nodes: tuple[NodeGroup, ...] = ()
    """Groups of equal nodes."""
    hostfile: str = ""
    """The original's hostfile, in place of nodes."""
    clusterfile: str = ""
    """The original's clusterfile.json, beside the hostfile."""
    lost: tuple[str, ...] = ()
    """Hosts of nodes that are described but not there: lost, or taken away. A node without a host
    is node0-3: the fourth (3) of the first group (0)."""

    def __post_init__(self) -> None:
        """Refuse both or neither."""
        files = bool(self.hostfile) + bool(self.clusterfile)
        if files == 1 or bool(files) == bool(self.nodes):
            raise InputError(
                "cluster: expected either [[cluster.nodes]] or both cluster.hostfile and"
                " cluster.clusterfile"
            )
        hosts = [group.host for group in self.nodes if group.host for _ in range(group.count)]
        twice = next((host for host in hosts if hosts.count(host) > 1), None)
        if twice is not None:
            raise InputError(
                f"cluster.nodes: host {twice!r} stands for {hosts.count(twice)} nodes; give each"
                " node its own host, or none"
            )

    def load(self, *, first_digit_slots: bool) -> Cluster:
        """Return the cluster, read from the files if it is given by them, without lost nodes."""
        if self.nodes:
            return Cluster(nodes=self.nodes).without(self.lost)
        return read_cluster(
            Path(self.hostfile), Path(self.clusterfile), first_digit_slots=first_digit_slots
        ).without(self.lost)


class ProfileSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where layer times and memory come from.

    `source` is "synthetic" (the published A100 measurements of one GPT, stretched), "analytic"
    (any model, from the devices' data sheets), "measure" (this machine, by the verb profile) or a
    folder of upstream profile files.
    """

    source: str = AUTO
    """auto, synthetic, analytic, measure (this machine, on first use), or a folder of profile
    files. auto is synthetic for the one GPT and the devices that it was measured for, else
    analytic; synthetic is replaced by analytic in the same way, except in mode compat."""
    max_tp: int = MEASURED[-1]
    """Largest tensor degree of the synthetic, analytic or measured profile."""
    max_batch_size: int = 32
    """Largest micro-batch of the synthetic, analytic or measured profile, samples."""
    dtype: Dtype = "float16"
    """Analytic only: type of weights and activations; bfloat16 where all devices know it."""
    efficiency: Efficiency = Efficiency()
    """Analytic only: what the devices reach of their data sheets."""
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
    """How to search: optimal (any nodes, groups and layer splits) or what it holds: the paper's two
    policies, the best of both by branch and bound (walks), wider, uniform."""
    mode: Mode = "strict"
    """strict, or compat: with the original's defects, for its printed numbers."""
    switches: dict[str, bool] = {}
    """Single behaviours of the original, by name (metis/plan/switches.py), on or off."""
    node_sequence: tuple[str, ...] = ()
    """Device types in the order from which node sequences are permuted; empty: as they appear."""
    first_profile: str = ""
    """compat: the profile that the original reads first, such as "A100_tp1_bs1"."""
    max_tp: int | None = None
    """Largest tensor degree to try; by default that of the profiles."""
    max_batch_size: int | None = None
    """Largest micro-batch to try, samples; by default that of the profiles."""
    group_variance: float = 1.0
    """Smallest device group, as a multiple of an equal split; lower allows unlike groups."""
    max_permute_len: int = 128
    """Units that are permuted; more are merged (methods metis and stratified)."""
    memory_fraction: float = 0.9
    """strict: usable part of a device's memory."""
    recompute: tuple[Recompute, ...] = ()
    """What a stage may do again in its backward pass to save activations: none, selective (each
    MLP) or full (each block); the quickest that fits is taken. By default any of them with the
    analytic profile, none with others. Methods optimal, wider and uniform."""
    optimizer: Literal["auto", "replicated", "sharded"] = "auto"
    """Whether the replicas of a stage share out the optimizer's states and its work (ZeRO-1); auto:
    with the analytic profile. Methods optimal, wider and uniform."""
    time_limit_s: float = 60.0
    """optimal, walks and wider: stop then and say what is proven."""
    bound_time_s: float = 10.0
    """walks: time for the lower bound of the wider space."""
    objective: Literal["time", "cost"] = "time"
    """What is made least: the time of an iteration, or its cost, that time x the price of the nodes
    used (so the throughput for the money is largest). Method optimal."""
    max_usd_per_hour: float | None = None
    """Most that the nodes used may cost together, US dollars an hour. Method optimal."""
    gap: float | None = None
    """optimal and walks: stop when the plan is within this fraction of its lower bound; by default
    when it is the best (optimal), or 0.002 (walks)."""
    trials: int = 1
    """metis and stratified: times the search is repeated to time it."""

    def __post_init__(self) -> None:
        """Refuse unknown switches and limits out of range."""
        resolve(self.mode, self.switches)
        self.first_key()
        self._check_wishes()
        if self.gap is not None and not 0 <= self.gap < 1:
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

    def _check_wishes(self) -> None:
        """Refuse what the method or the mode does not know."""
        if self.asks_for_savers() and self.method in PUBLISHED:
            raise InputError(
                f"search.method is {self.method!r}, which knows no recomputation and no sharded"
                " optimizer; leave search.recompute and search.optimizer out, or use optimal,"
                " wider or uniform"
            )
        if self.asks_for_savers() and not self.mended():
            raise InputError(
                "search.recompute and search.optimizer need mode strict without switches; leave"
                " them out"
            )
        if self.buys() and (self.method != "optimal" or not self.mended()):
            raise InputError(
                "search.objective and search.max_usd_per_hour need method optimal in mode strict"
                " without switches"
            )
        if self.max_usd_per_hour is not None and not self.max_usd_per_hour > 0:
            raise InputError(
                f"search.max_usd_per_hour is {self.max_usd_per_hour}, expected a positive number"
            )

    def asks_for_savers(self) -> bool:
        """Say whether the user wants recomputation or a sharded optimizer."""
        return self.optimizer == "sharded" or self.recompute not in ((), ("none",))

    def buys(self) -> bool:
        """Say whether prices matter."""
        return self.objective == "cost" or self.max_usd_per_hour is not None

    def mended(self) -> bool:
        """Say whether all of the original's defects are."""
        return resolve(self.mode, self.switches) == of_mode("strict")

    def savers(self, *, known: bool) -> Savers:
        """Return what stages may do; by default all where it is `known`, else nothing."""
        if not self.mended():
            return NO_SAVERS
        asked = set(self.recompute or (RECOMPUTES if known else ("none",)))
        return Savers(
            recompute=tuple(kind for kind in RECOMPUTES if kind in asked),
            sharded=known if self.optimizer == "auto" else self.optimizer == "sharded",
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
    """Iterations to train."""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Type of weights and activations."""
    learning_rate: float = 1e-3
    """Of AdamW."""
    tokens: str = ""
    """A .npy file of token ids; empty: synthetic tokens by seed."""
    checkpoint_every: int = 0
    """Steps between two checkpoints (runs/NAME/checkpoints), one at the end as well; 0: none."""
    resume: str = ""
    """A checkpoint's folder, or that of a run's checkpoints, to go on from, by any plan."""
    timeout_s: float = 600.0
    """How long a rank waits for another before the run is ended."""

    def __post_init__(self) -> None:
        """Refuse no steps and figures that are not positive."""
        if self.steps < 1:
            raise InputError(f"training.steps is {self.steps}, expected 1 or more")
        if self.checkpoint_every < 0:
            raise InputError(
                f"training.checkpoint_every is {self.checkpoint_every}, expected 0 or more"
            )
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
        cluster = self.cluster.load(first_digit_slots=compat)
        return cluster.by_sheet() if self.profile_kind(cluster) == ANALYTIC else cluster

    def profile_kind(self, cluster: Cluster) -> str:
        """Return where profiles come from: the source, with auto and synthetic decided."""
        source = self.profile.source
        if source not in (AUTO, SYNTHETIC):
            return source
        same = self.model.sequence_length == MEASURED_LENGTH and all(
            getattr(self.model, field) == size for field, size in GPT.items()
        )
        scaled = known_devices().keys() | self.profile.time_scale.keys()
        fits = same and scaled.issuperset(cluster.device_types())
        keeps = fits or self.search.mode == "compat"
        return SYNTHETIC if keeps and not self.model.config else ANALYTIC

    def load_profiles(self, cluster: Cluster, measured: Path | None = None) -> Profiles:
        """Return the profiles; `measured`: the folder of this machine's, for that source."""
        first = self.search.first_key()
        kind = self.profile_kind(cluster)
        if kind == ANALYTIC:
            return self._analytic(cluster)
        if kind == SYNTHETIC:
            found = synthesize(
                self.model.layers,
                max_tp=self.profile.max_tp,
                max_batch_size=self.profile.max_batch_size,
                time_scale=self._time_scale(cluster),
                memory=self.profile.memory,
                first=first,
            )
        else:
            folder = measured or Path(self.profile.source)
            found = read_profiles(folder, layers=self.model.resolved().layers, first=first)
            self._fill_activations(found)
        if self.search.asks_for_savers():
            found.fill_savings(Savings(self.model.resolved()))
        return found

    def _fill_activations(self, profiles: Profiles) -> None:
        """Take activations from the model where one batch size cannot tell them, and say so."""
        model, single = self.model.resolved(), profiles.single()
        for device, tp in single:
            kept = kept_bytes(model, tp, self.profile.dtype)
            profiles.activations_mb[device, tp] = tuple(
                model.sequence_length * size / MB for size in kept
            )
        if single and self.search.mode == "strict":
            log.warning(
                "%s: one batch size is profiled of %s, so activations are those of the model in %s"
                " (profile.dtype); profile a second batch size to measure them",
                profiles.origin, ", ".join(f"{d} tp {tp}" for d, tp in single),
                self.profile.dtype,
            )  # fmt: skip

    def _analytic(self, cluster: Cluster) -> Profiles:
        links = dict[str, float]()
        for node in cluster.machines():
            links[node.device] = min(node.intra_bandwidth, links.get(node.device, inf))
        return analytic(
            self.model.resolved(),
            {name: Machine(self._sheet(name), link) for name, link in links.items()},
            max_tp=self.profile.max_tp,
            max_batch_size=self.profile.max_batch_size,
            dtype=self.profile.dtype,
            efficiency=self.profile.efficiency,
        )

    def _sheet(self, name: str) -> devices.Device:
        try:
            return devices.find(name)
        except InputError as error:
            raise InputError(
                f"the analytic profile knows no {name!r}: name the device as in"
                " common/devices.toml, or give measured profiles in profile.source"
            ) from error

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


def checked(experiment: Experiment) -> Experiment:
    """Return the experiment; InputError where its cluster or its model's config is not usable."""
    experiment.load_cluster()
    experiment.model.resolved()
    return experiment


def axes(case: Case) -> dict[str, Axis]:
    """Return what tables select records by, beside verb and method."""
    return {"mode": case.experiment.search.mode}
