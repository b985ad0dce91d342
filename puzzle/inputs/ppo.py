"""How PPO is done, and how `run` carries it out."""

from math import inf
from typing import Literal

import msgspec

from common.errors import InputError

_MOST_S = 1e7
"""Longest that a rank may wait for another: some months, which a timer still holds."""


class Ppo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The constants of PPO (DeepSpeed-Chat's defaults, specification section 2.4)."""

    kl: float = 0.1
    """Weight of the divergence from the reference in every token's reward."""
    score_clip: float = 5.0
    ratio_clip: float = 0.2
    value_clip: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = False
    """Give the advantages of a global batch mean 0 and deviation 1; the original does not."""
    dschat_compat: bool = False
    """Put the score one position late where an answer ends early, as DeepSpeed-Chat does."""
    old_log_probs: Literal["generation", "training"] = "generation"
    """Take the old log-probabilities from generation, as the original, or from a forward pass in
    the training layout (one more pass, no difference of rounding)."""
    epochs: int = 1
    """Passes over a batch of experience."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for field in ("kl", "score_clip", "ratio_clip", "value_clip"):
            if not 0 <= getattr(self, field) < inf:
                raise InputError(f"ppo.{field} is {getattr(self, field)}, expected 0 or more")
        for field in ("gamma", "lam"):
            if not 0 <= getattr(self, field) <= 1:
                raise InputError(f"ppo.{field} is {getattr(self, field)}, expected 0 to 1")
        if self.epochs < 1:
            raise InputError(f"ppo.epochs is {self.epochs}, expected 1 or more")


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are drawn; 0 turns `top_k` and `top_p` off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    stop_at_end: bool = True
    """End an answer at the tokenizer's end token."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if not 0 < self.temperature < inf:
            raise InputError(f"sampling.temperature is {self.temperature}, expected above 0")
        if self.top_k < 0 or not 0 <= self.top_p <= 1:
            raise InputError("sampling.top_k is 0 or more and sampling.top_p 0 to 1")


class Optimizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW of one model, with warm-up and cosine decay to `least_rate`."""

    rate: float = 1e-5
    least_rate: float = 1e-6
    warmup: float = 0.01
    """Part of all steps over which the rate rises."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    """Largest norm of the whole gradient; 0 leaves it as it is."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for field in ("least_rate", "warmup", "weight_decay", "clip"):
            if not 0 <= getattr(self, field) < inf:
                raise InputError(f"optimizer.{field} is {getattr(self, field)}, expected 0 or more")
        if not 0 < self.rate < inf:
            raise InputError(f"optimizer.rate is {self.rate}, expected above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"optimizer.betas are {list(self.betas)}, expected 0 to below 1")


class Running(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `run` does with real ranks."""

    engine: Literal["puzzle", "deepspeed"] = "puzzle"
    """`deepspeed` is the baseline: ZeRO-3 over all ranks, the actor gathered to generate."""
    hybrid_engine: bool = True
    """Of engine `deepspeed`: generate by its inference kernels where they can be had (GPUs)."""
    steps: int = 6
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights in the passes; the halves keep float32 main weights, and float16 scales losses."""
    loss_scale: float = 65536.0
    """Of float16 at the start, of each model; halved when a gradient is not finite."""
    loss_scale_window: int = 1000
    """Updates without such a gradient after which a model's scale doubles."""
    prompts: str = "small"
    """A JSONL or parquet file with a column `prompt`, or `small`, the set that is shipped."""
    tokenizer: str = "bytes"
    """`bytes`, or a folder with a Hugging Face tokenizer."""
    reward: str = "model"
    """`model`: the reward model; `letters:abc`: the part of the answer's characters among these."""
    actor_weights: str = ""
    """A folder with Hugging Face safetensors; empty: random weights by seed."""
    critic_weights: str = ""
    save_to: str = ""
    """Folder for the aligned actor as Hugging Face safetensors; empty: not written."""
    checkpoint: str = ""
    """Folder of checkpoints: written there, and resumed from where one is."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: only after the last step."""
    baselines: bool = False
    """Also switch by gathering all weights, as DeepSpeed-Chat and HybridFlow do, and measure."""
    timeout_s: float = 300.0
    """How long a rank waits for another before the run is ended."""
    switch_beside: bool = True
    """On CUDA, switch beside the critic's training; false: when generation begins, as the paper, so
    that the switch's whole time is seen."""
    cuda_graphs: bool = False
    """Decode by CUDA graphs: on GPUs, with a generation layout of one stage."""
    sampling: Sampling = Sampling()
    actor_optimizer: Optimizer = Optimizer()
    critic_optimizer: Optimizer = Optimizer()

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if self.steps < 1:
            raise InputError(f"running.steps is {self.steps}, expected 1 or more")
        if not 1 <= self.loss_scale < inf or self.loss_scale_window < 1:
            raise InputError("running.loss_scale and running.loss_scale_window are 1 or more")
        if self.checkpoint_every < 0:
            raise InputError(
                f"running.checkpoint_every is {self.checkpoint_every}, expected 0 or more"
            )
        if not 0 < self.timeout_s <= _MOST_S:
            raise InputError(
                f"running.timeout_s is {self.timeout_s}, expected above 0 and at most {_MOST_S:g}"
            )
