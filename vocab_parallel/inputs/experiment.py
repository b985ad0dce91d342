"""A user's question as one frozen value: model, pipeline, machine, and how `run` trains."""

import re
from typing import Literal

import msgspec

from common.errors import InputError
from vocab_parallel.inputs.machine import Machine, known_machines
from vocab_parallel.inputs.model import Model

MethodName = Literal[
    "auto",
    "baseline",
    "redis",
    "interlaced",
    "vocab-1",
    "vocab-2",
    "naive",
    "v-half",
    "v-half-vocab-1",
    "v-half-vocab-2",
]
Arithmetic = Literal["stable", "published"]


class Pipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the work is cut: p ranks, m micro-batches of b sequences, and the method.

    `auto` compares all methods and takes the fastest that fits into memory.
    """

    ranks: int = 8
    tensor_parallel: int = 1
    """Ranks that share every pipeline position, so that p x t ranks hold the vocabulary."""
    batches: int = 128
    batch_size: int = 1
    method: MethodName = "auto"
    layers: tuple[int, ...] = ()
    """Layers of every stage in pipeline order (V-Half has 2p stages); empty: by the method."""
    final_stage_layers: int | None = None
    """redis: layers left on the last stage; None: by the min-max rule."""
    forward_cost: float = 1.0
    backward_cost: float = 2.0
    """Relative times of F and B from which the order of passes is made."""

    def __post_init__(self) -> None:
        """Refuse an empty pipeline."""
        for field in ("ranks", "tensor_parallel", "batches", "batch_size"):
            if getattr(self, field) < 1:
                raise InputError(f"pipeline.{field} is {getattr(self, field)}, expected 1 or more")


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the verb run trains."""

    steps: int = 5
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Of weights and activations in the passes; bfloat16 keeps float32 main weights."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 8.0
    """Largest norm of the whole gradient; 0 leaves it as it is."""
    label_smoothing: float = 0.0
    vocab_2: Arithmetic = "stable"
    """Algorithm 2's S pass: with the labels' rows subtracted before rounding, or as published."""
    block: int = 0
    """Tokens per block in S and T; 0: all at once."""
    keep: Literal["softmax", "logits", "nothing"] = "softmax"
    """What S leaves for T: the softmax (4 bytes a logit), the logits in `dtype`, or nothing (T then
    computes them again, a third more work)."""
    kernel: Literal["torch", "triton"] = "torch"
    """Who does the elementwise part of S; triton needs its package, a GPU and no float64."""
    data_parallel: int = 1
    """Replicas of the pipeline, each with its own micro-batches."""
    tokens: str = ""
    """A .npy file of token ids in one row, or a .txt file whose bytes they are, or `sonnets` (some
    of Shakespeare's, byte by byte) or `sonnets-gpt2` (the same in GPT-2's 50257 tokens); empty:
    synthetic tokens by seed."""
    replay_rank: int | None = None
    """Instead of training, carry out this rank's program on one device, with the other ranks
    imagined; -1: each rank's in turn."""
    timeout_s: float = 600.0
    """How long a rank waits for another before the run is ended."""
    checkpoint: str = ""
    """Folder of checkpoints: written there, and resumed from where one is."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: only after the last step, where a folder is given."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for field in ("steps", "data_parallel"):
            if getattr(self, field) < 1:
                raise InputError(f"training.{field} is {getattr(self, field)}, expected 1 or more")
        for field in ("block", "checkpoint_every", "clip", "weight_decay"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise InputError(f"training.{field} is {getattr(self, field)}, expected 0 or more")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"training.label_smoothing is {self.label_smoothing}, expected 0 or more, below 1"
            )
        for field in ("learning_rate", "timeout_s"):
            if not 0 < getattr(self, field) < float("inf"):
                raise InputError(f"training.{field} is {getattr(self, field)}, expected above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"training.betas is {list(self.betas)}, expected 0 or more, below 1")


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A planning question: model, machine and pipeline; and how to train.

    `machine` names a calibration (`vocab_parallel/data/machines.toml`); `[constants]`, where it is
    given, are a user's own in its place.
    """

    name: str
    about: str = ""
    model: Model = Model()
    pipeline: Pipeline = Pipeline()
    megatron: str = ""
    """A file of Megatron's arguments, from which model, pipeline and optimizer are taken."""
    machine: str = "a100-paper"
    constants: Machine | None = None
    training: Training = Training()

    def __post_init__(self) -> None:
        """Refuse a name that cannot name files, and an unknown machine."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(
                f"name is {self.name!r}, expected letters, digits, '.', '_' or '-' (it names files)"
            )
        if self.constants is None and self.machine not in known_machines():
            raise InputError(
                f"machine is {self.machine!r}, expected one of {', '.join(known_machines())},"
                " or your own constants in [constants]"
            )

    @property
    def device(self) -> Machine:
        """The constants that times and memory are predicted from."""
        return self.constants or known_machines()[self.machine]
