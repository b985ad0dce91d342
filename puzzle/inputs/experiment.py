"""A user's question as one frozen value: models, cluster, workload, layouts, and how to align."""

import re
from typing import Literal

import msgspec

from common.errors import InputError
from puzzle.inputs.cluster import Cluster, known_clusters
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, known_models
from puzzle.inputs.ppo import Ppo, Running
from puzzle.inputs.precision import DtypeName
from puzzle.inputs.savings import Savings
from puzzle.inputs.workload import Workload

MethodName = Literal["auto", "given", "base", "generation", "released"]
"""How layouts and schedules are chosen.

`auto`: searched; `given`: as the experiment says; `base`: the training layout for every stage and
sequential training (the paper's PUZZLE-Base, train-opt); `generation`: the generation layout for
every stage (gen-opt); `released`: as given, with the original's mapping and its faults.
"""


_USUAL_CLUSTER = "orion"
_A_GPUS = 10.0
"""TFLOP/s that every GPU's peak is above, and no CPU's that has been profiled."""


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Layouts and schedules that `given` takes."""

    training: Layout = Layout()
    """Of training and of inference (scoring)."""
    generation: Layout = Layout()
    """Of generation; of as many ranks as training's."""
    mapping: Literal["original", "interleaved", "overlap"] = "overlap"
    """Which generation place a rank takes: `overlap` leaves most weights where they are, `original`
    is rank order, `interleaved` the paper's."""
    schedule: Literal["sequential", "merged", "fused"] = "merged"
    """Of training: actor then critic, both in one 1F1B stream, or both from opposite ends."""
    inference: Literal["sequential", "merged"] = "merged"
    """Score with one model after the other, or with all in one stream."""
    recompute: bool = False
    """Of each layer keep only its input for the backward pass, which computes the rest anew
    (activation checkpointing, Chen et al. 2016): less memory, a longer backward pass."""
    shard_optimizer: bool = False
    """Each of the training layout's replicas holds main weights and moments of its share of the
    weights, updates that share, and gives it to the others (ZeRO-1, Rajbhandari et al. 2020)."""

    @property
    def savings(self) -> Savings:
        """What is done for memory."""
        return Savings(self.recompute, self.shard_optimizer)


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A planning question, and how `run` aligns.

    Models and cluster are names (`data/models.toml`, `data/clusters.toml`) or tables of one's own.
    """

    name: str
    """Names the files that are written; letters, digits, '.', '_' and '-'."""
    about: str = ""
    """One line for whoever reads the list."""
    method: MethodName = "auto"
    """`auto` searches; `given` takes [choice]; `base` is its training layout for all stages,
    `generation` its generation layout, `released` [choice] with the original's faults."""
    actor: str | Llama = "7b"
    """The model that is aligned: 350m, 7b, 13b or 33b, a `config.json`, its folder, a name of the
    catalogue (`Qwen3-8B`), or a table [actor]."""
    critic: str | Llama = "7b"
    """The body of critic and reward model: 350m, 7b, 13b or 33b, or in the same ways."""
    device: str = ""
    """A device by its data sheet (`H100`), in nodes of 8, in place of a cluster; as many as
    `devices`, 8 if that is not given. Times are then of an analytic profile, not measured."""
    cluster: str | Cluster = _USUAL_CLUSTER
    """A calibration: orion (8 x A800 PCIe a node), phoenix (8 x A100 NVLink a node), orion-plain,
    phoenix-plain (the specification's constants), cpu, or a table [cluster]."""
    devices: int | None = None
    """Devices to use; all of the cluster's if it is not given."""
    work: Workload = Workload()
    """Sizes of one PPO step, in sequences and tokens."""
    choice: Choice = Choice()
    """Layouts and schedules that every method but `auto` begins with."""
    ppo: Ppo = Ppo()
    """The constants of PPO."""
    running: Running = Running()
    """What `run` does with real ranks."""

    def __post_init__(self) -> None:
        """Refuse a name that cannot name files, and unknown models and clusters."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(
                f"name is {self.name!r}, expected letters, digits, '.', '_' or '-' (it names files)"
            )
        self._resolve_models()
        if isinstance(self.cluster, str) and self.cluster not in known_clusters():
            raise InputError(
                f"cluster is {self.cluster!r}, expected one of {', '.join(known_clusters())}, or a"
                " table [cluster]"
            )
        if self.device and self.cluster != _USUAL_CLUSTER:
            raise InputError(
                f"device is {self.device!r} and a cluster is given too; leave one of them out, or"
                " write `device` into [cluster]"
            )
        if self.devices is not None and self.devices < 1:
            raise InputError(f"devices is {self.devices}, expected 1 or more")
        if self.world > self.machines.devices:
            raise InputError(
                f"devices is {self.world}, but the cluster has {self.machines.devices}; use fewer,"
                " or give a table [cluster] with more"
            )

    def _resolve_models(self) -> None:
        """Put what a name of the catalogue or a file describes in the place of its name."""
        for field in ("actor", "critic"):
            value = getattr(self, field)
            if not isinstance(value, str) or value in known_models():
                continue
            try:
                model = Llama(config=value)
            except InputError as error:
                raise InputError(
                    f"{field} is {value!r}, expected one of {', '.join(known_models())}, or a table"
                    f" [{field}], or a config.json, its folder or a catalogue's name: {error}"
                ) from error
            msgspec.structs.force_setattr(self, field, model)

    @property
    def actor_model(self) -> Llama:
        """The model that is aligned."""
        return known_models()[self.actor] if isinstance(self.actor, str) else self.actor

    @property
    def critic_model(self) -> Llama:
        """The body of critic and reward model."""
        return known_models()[self.critic] if isinstance(self.critic, str) else self.critic

    @property
    def machines(self) -> Cluster:
        """The devices and the constants that times are predicted from."""
        if self.device:
            return Cluster(device=self.device, devices=self.devices or 8)
        return known_clusters()[self.cluster] if isinstance(self.cluster, str) else self.cluster

    @property
    def dtype(self) -> DtypeName:
        """The precision of the passes; a device of fewer TFLOP/s than any GPU's is a CPU."""
        if self.running.dtype != "auto":
            return self.running.dtype
        return "float32" if self.machines.constants.peak_tflops < _A_GPUS else "bfloat16"

    @property
    def critic_learns(self) -> bool:
        """Whether there is a critic to train."""
        return self.ppo.critic_learns

    @property
    def world(self) -> int:
        """Devices in use."""
        return self.devices or self.machines.devices

    @property
    def pair(self) -> str:
        """Both models in short."""
        names = [x if isinstance(x, str) else "own" for x in (self.actor, self.critic)]
        return "/".join(names).upper()
