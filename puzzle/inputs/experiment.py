"""A user's question as one frozen value: models, cluster, workload, layouts, and how to align."""

import re
from typing import Literal

import msgspec

from common.errors import InputError
from puzzle.inputs.cluster import Cluster, known_clusters
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, known_models
from puzzle.inputs.ppo import Ppo, Running
from puzzle.inputs.workload import Workload

MethodName = Literal["auto", "given", "base", "generation", "released"]
"""How layouts and schedules are chosen.

`auto`: searched; `given`: as the experiment says; `base`: the training layout for every stage and
sequential training (the paper's PUZZLE-Base, train-opt); `generation`: the generation layout for
every stage (gen-opt); `released`: as given, with the original's mapping and its faults.
"""


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Layouts and schedules that `given` takes."""

    training: Layout = Layout()
    generation: Layout = Layout()
    mapping: Literal["original", "interleaved", "overlap"] = "overlap"
    schedule: Literal["sequential", "merged", "fused"] = "merged"
    inference: Literal["sequential", "merged"] = "merged"


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A planning question, and how `run` aligns.

    Models and cluster are names (`data/models.toml`, `data/clusters.toml`) or tables of one's own.
    """

    name: str
    about: str = ""
    method: MethodName = "auto"
    actor: str | Llama = "7b"
    critic: str | Llama = "7b"
    cluster: str | Cluster = "orion"
    devices: int | None = None
    """Devices to use; all of the cluster's if it is not given."""
    work: Workload = Workload()
    choice: Choice = Choice()
    ppo: Ppo = Ppo()
    running: Running = Running()

    def __post_init__(self) -> None:
        """Refuse a name that cannot name files, and unknown models and clusters."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(
                f"name is {self.name!r}, expected letters, digits, '.', '_' or '-' (it names files)"
            )
        for field, known in (
            ("actor", known_models()),
            ("critic", known_models()),
            ("cluster", known_clusters()),
        ):
            value = getattr(self, field)
            if isinstance(value, str) and value not in known:
                raise InputError(
                    f"{field} is {value!r}, expected one of {', '.join(known)}, or a table"
                    f" [{field}]"
                )
        if self.devices is not None and self.devices < 1:
            raise InputError(f"devices is {self.devices}, expected 1 or more")
        if self.world > self.machines.devices:
            raise InputError(
                f"devices is {self.world}, but the cluster has {self.machines.devices}; use fewer,"
                " or give a table [cluster] with more"
            )

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
        return known_clusters()[self.cluster] if isinstance(self.cluster, str) else self.cluster

    @property
    def world(self) -> int:
        """Devices in use."""
        return self.devices or self.machines.devices

    @property
    def pair(self) -> str:
        """Both models in short."""
        names = [x if isinstance(x, str) else "own" for x in (self.actor, self.critic)]
        return "/".join(names).upper()
