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
    "interleaved",
    "interleaved-vocab-1",
    "interleaved-vocab-2",
    "zb-h1",
    "zb-h1-vocab-1",
    "zb-h1-vocab-2",
    "zb-v",
    "zb-v-vocab-1",
    "zb-v-vocab-2",
]
Arithmetic = Literal["stable", "published"]
Dtype = Literal["float32", "float64", "bfloat16"]
Gradients = Literal["float32", "dtype"]
Keep = Literal["softmax", "logits", "nothing"]
Recompute = Literal["none", "uniform", "block", "every"]


class Pipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the work is cut: p ranks, m micro-batches of b sequences, and the method."""

    ranks: int = 8
    """Pipeline positions (p)."""
    tensor_parallel: int = 1
    """Ranks that share every pipeline position, so that p x t ranks hold the vocabulary."""
    sequence_parallel: bool = False
    """Of plans alone: those ranks cut norms' inputs and sums along the sequence."""
    batches: int = 128
    """Micro-batches per iteration and replica (m)."""
    batch_size: int = 1
    """Sequences per micro-batch (b)."""
    method: MethodName = "auto"
    """Schedule and split of the vocabulary layers; auto: the fastest that fits into memory."""
    virtual_stages: int = 0
    """Chunks of layers that every rank holds by an interleaved method (v); 0: by auto the fastest
    of 2 to 8 that fits, by a named method 2."""
    layers: tuple[int, ...] = ()
    """Layers of every stage in pipeline order (2p stages of V-Half or ZB-V, v x p of an interleaved
    method); empty: by the method."""
    final_stage_layers: int | None = None
    """redis: layers left on the last stage; unset: by the min-max rule."""
    forward_cost: float = 1.0
    """Time of F relative to `backward_cost`, from which the order of passes is made."""
    backward_cost: float = 2.0
    """Time of B relative to `forward_cost`, no less than that."""

    def __post_init__(self) -> None:
        """Refuse an empty pipeline, and times of F and B without an order of passes."""
        for field in ("ranks", "tensor_parallel", "batches", "batch_size"):
            if getattr(self, field) < 1:
                raise InputError(f"pipeline.{field} is {getattr(self, field)}, expected 1 or more")
        if self.virtual_stages < 0:
            raise InputError(
                f"pipeline.virtual_stages is {self.virtual_stages}, expected 0 (auto) or more"
            )
        if not 0 < self.forward_cost <= self.backward_cost < float("inf"):
            raise InputError(
                f"pipeline.forward_cost is {self.forward_cost} and pipeline.backward_cost"
                f" {self.backward_cost}, expected 0 < forward_cost <= backward_cost"
            )


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the verb run trains."""

    steps: int = 5
    """Iterations, each over a global batch; those that a checkpoint has seen count."""
    dtype: Dtype = "float32"
    """Of weights and activations in the passes; bfloat16 keeps float32 main weights."""
    gradients: Gradients = "float32"
    """What gradients are added up in: float32 (float64 where `dtype` is), or, of plans alone,
    `dtype` itself as in the paper's runs."""
    learning_rate: float = 1e-3
    """AdamW's step size, the same in all steps."""
    weight_decay: float = 0.1
    """AdamW's, of matrices only."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay of the first and second moment."""
    clip: float = 8.0
    """Largest norm of the whole gradient; 0 leaves it as it is."""
    label_smoothing: float = 0.0
    """Part of the target that is spread over the whole vocabulary, from 0 to below 1."""
    vocab_2: Arithmetic = "stable"
    """Algorithm 2's S pass: with the labels' rows subtracted before rounding, or as published."""
    block: int = 0
    """Tokens per block in S and T; 0: all at once."""
    keep: Keep = "softmax"
    """What S leaves for T: the softmax (4 bytes a logit), the logits in `dtype`, or nothing (T then
    computes them again, a third more work)."""
    recompute: Recompute = "none"
    """Layers of which F keeps the input alone and B runs the forward pass again, by
    `recompute_layers` (n): uniform: all, in groups of n; block: the first n of every stage one by
    one; every: each n-th of a stage."""
    recompute_layers: int = 1
    """The n of `recompute`."""
    kernel: Literal["torch", "triton"] = "torch"
    """Who does the elementwise part of S; triton needs its package, a GPU and no float64."""
    shard_optimizer: bool = False
    """Of plans alone: replicas share main weights and moments out (ZeRO-1)."""
    data_parallel: int = 1
    """Replicas of the pipeline, each with its own micro-batches."""
    tokens: str = ""
    """A .npy file of token ids in one row, or a .txt file whose bytes they are, or `sonnets` (some
    of Shakespeare's, byte by byte) or `sonnets-gpt2` (the same in GPT-2's 50257 tokens); empty:
    synthetic tokens by seed."""
    weights: str = ""
    """A folder with Hugging Face safetensors of the model to start from; empty: random ones."""
    replay_rank: int | None = None
    """Instead of training, carry out this rank's program on one device, with the other ranks
    imagined; -1: each rank's in turn."""
    timeout_s: float = 600.0
    """How long, in seconds, a rank waits for another before the run is ended."""
    checkpoint: str = ""
    """Folder of checkpoints: written there, and resumed from where one is; empty: none."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: only after the last step, where a folder is given."""
    checkpoint_fallback: bool = False
    """Go on from the checkpoint before where the last one is damaged, instead of ending the run."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for field in ("steps", "data_parallel", "recompute_layers"):
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
    """A planning question: model, machine and pipeline; and how to train."""

    name: str
    """Names the files that belong to it: letters, digits, '.', '_' and '-'."""
    about: str = ""
    """One line for the list of experiments."""
    model: Model = Model()
    pipeline: Pipeline = Pipeline()
    megatron: str = ""
    """A file of Megatron's arguments, from which model, pipeline and optimizer are taken."""
    torchtitan: str = ""
    """A job config of torchtitan (TOML), from which the same are taken."""
    machine: str = "a100-paper"
    """A calibration to predict times and memory from: a100-paper or a100-seed; without effect where
    `[constants]` are given."""
    device: str = ""
    """A GPU of the shipped data sheets (H100, RTX 4090, ...) to predict from, in place of a
    calibration."""
    constants: Machine | None = None
    """A machine of your own in place of a named one; the verb profile measures and writes it."""
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
    def rank_machine(self) -> Machine:
        """The constants that times and memory are predicted from."""
        return self.constants or known_machines()[self.machine]
