"""How PPO is done, and how `run` carries it out."""

from math import inf
from typing import Literal

import msgspec

from common.errors import InputError
from puzzle.inputs.precision import DtypeName

_MOST_S = 1e7
"""Longest that a rank may wait for another: some months, which a timer still holds."""

LossMean = Literal["token-mean", "sequence-mean", "sequence-mean-token-sum"]
KlEstimator = Literal["k1", "k2", "k3"]
Overlong = Literal["filter", "keep-end"]
AlgorithmName = Literal["ppo", "grpo", "rloo", "reinforce++"]
RatioName = Literal["token", "sequence"]
ResumeName = Literal["last", "last-whole"]
MissingEnd = Literal["none", "penalty", "mask", "bootstrap"]


class Ppo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The constants of PPO (DeepSpeed-Chat's defaults, specification section 2.4) and its kin.

    Counts and means are of the whole (mini-)batch of all replicas, whatever its cut into replicas
    and micro-batches, so no choice of layout changes the objective. Log-probabilities l are of the
    distribution drawn from, rewards and advantages in units of the score.
    """

    algorithm: AlgorithmName = "ppo"
    """What an answer is held against: `ppo`, a critic's values; without a critic, `grpo`, the mean
    and deviation of the answers to the same prompt (Shao et al. 2024); `rloo`, the mean of the
    others to it (Ahmadian et al. 2024); `reinforce++`, the mean and deviation of all tokens of the
    batch (Hu 2025)."""
    samples: int = 1
    """Answers to each prompt, one after the other in a batch; divides work.batch; 2 or more for
    `grpo` and `rloo`."""
    loss_mean: LossMean = "token-mean"
    """How token losses become one: `token-mean`, their sum over the number of tokens;
    `sequence-mean`, the mean over answers of each answer's mean; `sequence-mean-token-sum`, the
    mean over answers of each answer's sum. Answers without a learnt token do not count."""
    kl: float = 0.1
    """Weight of the divergence from the reference, score per nat; where `kl_target` is given, the
    weight to begin with."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Take the divergence off every token's reward (as the original), or add it to the actor's
    loss (as GRPO), where its gradient is that of the estimator."""
    kl_estimator: KlEstimator = "k1"
    """Of d = l - l_reference at a drawn token (Schulman 2020), nats: `k1` d; `k2` d^2 / 2; `k3`
    exp(-d) - 1 + d."""
    kl_target: float = 0.0
    """Divergence that the weight is adapted to (Ziegler et al. 2019, section 2.2), nats an answer;
    0 leaves the weight as it is."""
    kl_horizon: float = 10000.0
    """Answers over which the weight is adapted."""
    score_clip: float = 5.0
    """Largest absolute score, after `normalise_rewards`."""
    ratio_clip: float = 0.2
    """Largest change of a token's probability ratio from 1 that is rewarded."""
    ratio_clip_high: float | None = None
    """The same for changes upward (DAPO's clip-higher, Yu et al. 2025); `ratio_clip` if it is not
    given."""
    ratio: RatioName = "token"
    """Of new to old probability: each `token`'s, or for all tokens of an answer the geometric mean
    of theirs, `sequence` (GSPO, Zheng et al. 2025)."""
    value_clip: float = 0.2
    """Largest change of a value that is rewarded, in units of the critic's output."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """Decay per token of generalised advantages."""
    entropy: float = 0.0
    """Weight of the entropy of the distribution drawn from (nats a token) in the actor's loss,
    which falls with it; 0 computes none."""
    whiten: bool = False
    """Give the advantages of a global batch mean 0 and deviation 1; the original does not."""
    normalise_rewards: Literal["none", "scale", "whiten"] = "none"
    """`scale`: divide scores by the deviation of all scores so far; `whiten`: take their mean off
    first."""
    normalise_values: bool = False
    """Let the critic give values in units of the deviation of all returns of the steps before, from
    their mean."""
    missing_end: MissingEnd = "none"
    """What an answer that was cut off at `work.answer` tokens, without an end token, is worth:
    `none`, as if it had ended; `penalty`, its score less `missing_end_penalty`; `mask`, it is not
    learnt from, by neither model; `bootstrap`, in place of a score, which it has not come to, what
    the critic expects after its last token."""
    missing_end_penalty: float = 1.0
    """Of `penalty`, in units of the clipped score."""
    overlong_buffer: int = 0
    """Tokens before `work.answer` over which a longer answer is worth less and less, down to its
    score less `overlong_penalty` at `work.answer` (DAPO's soft overlong punishment, Yu et al.
    2025); 0: none."""
    overlong_penalty: float = 1.0
    """Of an answer of `work.answer` tokens, in units of the clipped score."""
    dynamic_sampling: int = 0
    """Most batches that are generated for one step, so that prompts whose answers are all scored
    alike, which teach `grpo` and `rloo` nothing, are replaced by others (DAPO, Yu et al. 2025);
    what is then still missing is filled with them. 0: none is replaced. Predicted times are those
    of one batch."""
    dschat_compat: bool = False
    """Put the score one position late where an answer ends early, as DeepSpeed-Chat does."""
    old_log_probs: Literal["generation", "training"] = "generation"
    """Take the old log-probabilities from generation, as the original, or from a forward pass in
    the training layout (one more pass, no difference of rounding)."""
    mini_batch: int = 0
    """Answers of all replicas together between two updates, in the order of the batch; 0: the
    whole batch. Predicted times are those of the whole batch."""
    epochs: int = 1
    """Passes over a batch of experience."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for field in ("kl", "kl_target", "score_clip", "ratio_clip", "value_clip", "entropy",
                      "missing_end_penalty", "overlong_penalty", "overlong_buffer",
                      "dynamic_sampling"):  # fmt: skip
            if not 0 <= getattr(self, field) < inf:
                raise InputError(f"ppo.{field} is {getattr(self, field)}, expected 0 or more")
        for field in ("gamma", "lam"):
            if not 0 <= getattr(self, field) <= 1:
                raise InputError(f"ppo.{field} is {getattr(self, field)}, expected 0 to 1")
        if not 0 < self.kl_horizon < inf:
            raise InputError(f"ppo.kl_horizon is {self.kl_horizon}, expected above 0")
        self._check_algorithm()
        if self.epochs < 1:
            raise InputError(f"ppo.epochs is {self.epochs}, expected 1 or more")
        if self.mini_batch < 0:
            raise InputError(f"ppo.mini_batch is {self.mini_batch}, expected 0 or more")

    @property
    def critic_learns(self) -> bool:
        """Say whether there is a critic."""
        return self.algorithm == "ppo"

    def _check_algorithm(self) -> None:
        """Refuse what an algorithm has no use for, rather than leave it aside."""
        high = self.ratio_clip_high
        if high is not None and not 0 <= high < inf:
            raise InputError(f"ppo.ratio_clip_high is {high}, expected 0 or more")
        least = 2 if self.algorithm in ("grpo", "rloo") else 1
        if self.samples < least:
            raise InputError(
                f"ppo.samples is {self.samples}, expected {least} or more for {self.algorithm}"
            )
        if self.dynamic_sampling and self.algorithm not in ("grpo", "rloo"):
            raise InputError(
                f"ppo.dynamic_sampling is {self.dynamic_sampling}, but {self.algorithm} learns from"
                " answers that are scored alike too; leave it out, or use grpo or rloo"
            )
        if self.critic_learns:
            return
        for field, needs_critic in (
            ("missing_end", self.missing_end == "bootstrap"),
            ("normalise_values", self.normalise_values),
        ):
            if needs_critic:
                raise InputError(
                    f"ppo.{field} is {getattr(self, field)!r}, but {self.algorithm} has no critic;"
                    " leave it out"
                )


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are drawn: from softmax(logits / temperature), cut to `top_k`, then to `top_p`.

    The same distribution is learnt: the tokens that a cut left to draw from are remembered as bits,
    vocabulary / 8 bytes a token, and actor and reference are cut to them alike.
    """

    temperature: float = 1.0
    """Divides the logits."""
    top_k: int = 0
    """Tokens left, the likeliest (and those as likely as the last of them); 0: all."""
    top_p: float = 0.0
    """Least probability of the likeliest tokens that are left, as few as reach it; 0: all."""
    stop_at_end: bool = True
    """End an answer at an end token."""
    end_tokens: tuple[int, ...] = ()
    """Ids of the tokens that end an answer; empty: the tokenizer's end token, and those of
    `generation_config.json` in the folder of `running.actor_weights`."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if not 0 < self.temperature < inf:
            raise InputError(f"sampling.temperature is {self.temperature}, expected above 0")
        if self.top_k < 0 or not 0 <= self.top_p <= 1:
            raise InputError("sampling.top_k is 0 or more and sampling.top_p 0 to 1")
        if any(token < 0 for token in self.end_tokens):
            raise InputError(f"sampling.end_tokens are {list(self.end_tokens)}, expected 0 or more")

    @property
    def cuts(self) -> bool:
        """Say whether fewer tokens than all are drawn from."""
        return self.top_k > 0 or 0 < self.top_p < 1


class Optimizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW of one model, with warm-up and cosine decay to `least_rate`."""

    rate: float = 1e-5
    """Learning rate after the warm-up."""
    least_rate: float = 1e-6
    """Learning rate of the last step."""
    warmup: float = 0.01
    """Part of all steps over which the rate rises."""
    weight_decay: float = 0.01
    """Taken off each weight per step, as a multiple of rate and weight."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the mean gradient and of its mean square, per step."""
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


class RewardTerm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several rewards that are added up."""

    score: str
    """As `running.reward`."""
    weight: float = 1.0
    """What its score is multiplied by."""

    def __post_init__(self) -> None:
        """Refuse a weight that is no number."""
        if not -inf < self.weight < inf:
            raise InputError(f"running.reward.weight is {self.weight}, expected a finite number")


class Running(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `run` does with real ranks."""

    engine: Literal["puzzle", "deepspeed"] = "puzzle"
    """`deepspeed` is the baseline: ZeRO-3 over all ranks, the actor gathered to generate."""
    hybrid_engine: bool = True
    """Of engine `deepspeed`: generate by its inference kernels where they can be had (GPUs)."""
    steps: int = 6
    """PPO steps to run."""
    dtype: Literal["auto"] | DtypeName = "auto"
    """Of weights in the passes, for times and memory too; `auto`: bfloat16, on CPUs (a peak below
    10 TFLOP/s, as the cluster `cpu`) float32. The halves keep float32 main weights, and float16
    scales losses; float64 is for checks on CPUs."""
    loss_scale: float = 65536.0
    """Of float16 at the start, of each model; halved when a gradient is not finite."""
    loss_scale_window: int = 1000
    """Updates without such a gradient after which a model's scale doubles."""
    prompts: str = "small"
    """A JSONL or parquet file with a column `prompt`, text or messages, or a column `messages`, for
    the tokenizer's chat template; or `small`, the set that is shipped."""
    overlong_prompts: Overlong = "filter"
    """Of a prompt with more than `work.prompt` tokens: `filter` leaves it out, and the result says
    how many; `keep-end` keeps its last tokens, as the original."""
    evaluate_every: int = 0
    """Steps between two evaluations: the mean score of one answer to each of
    `evaluation_prompts`, drawn by the same random numbers every time; 0: none."""
    evaluation_prompts: str = ""
    """Prompts that are not trained on, in a file as `prompts`."""
    tokenizer: str = "bytes"
    """`bytes`, or a folder with a Hugging Face tokenizer."""
    reward: str | tuple[RewardTerm, ...] = "model"
    """`model`: the reward model; `letters:abc`: the part of the answer's characters among these;
    `FILE.py:NAME` or `MODULE:NAME`: a function of your own, which is given a list of rows (all
    columns of the data set, and `answer`) and returns as many scores. Several are a list of tables
    with `score` and `weight`."""
    reward_timeout_s: float = 60.0
    """Longest that a function of your own may take for the answers of a rank."""
    reward_on_failure: float = 0.0
    """Score of an answer at which it raises or does not end; the log counts them."""
    actor_weights: str = ""
    """A folder with Hugging Face safetensors; empty: random weights by seed."""
    critic_weights: str = ""
    """The same for the critic, and for the reward model if that has none of its own."""
    reference_weights: str = ""
    """The same for the reference; empty: the actor as it was."""
    reward_weights: str = ""
    """The same for the reward model; empty: the critic's."""
    save_to: str = ""
    """Folder for the aligned actor as Hugging Face safetensors; empty: not written."""
    checkpoint: str = ""
    """Folder of checkpoints: written there, and resumed from where one is."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: only after the last step."""
    checkpoint_keep: int = 0
    """How many of the newest checkpoints are kept; 0: all."""
    resume: ResumeName = "last"
    """Which checkpoint to go on from: `last`, refused where it is damaged; `last-whole` passes over
    damaged ones to the newest that is as it was written, and says so."""
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
        if self.evaluate_every and not self.evaluation_prompts:
            raise InputError(
                f"running.evaluate_every is {self.evaluate_every}, but evaluation_prompts is empty;"
                " name a file of prompts that are not trained on"
            )
        for field in ("checkpoint_every", "checkpoint_keep", "evaluate_every"):
            if getattr(self, field) < 0:
                raise InputError(f"running.{field} is {getattr(self, field)}, expected 0 or more")
        if not self.reward:
            raise InputError("running.reward is empty, expected one or more rewards")
        if not 0 < self.reward_timeout_s <= _MOST_S:
            raise InputError(
                f"running.reward_timeout_s is {self.reward_timeout_s}, expected above 0 and at most"
                f" {_MOST_S:g}"
            )
        if not -inf < self.reward_on_failure < inf:
            raise InputError(
                f"running.reward_on_failure is {self.reward_on_failure}, expected a finite number"
            )
        if not 0 < self.timeout_s <= _MOST_S:
            raise InputError(
                f"running.timeout_s is {self.timeout_s}, expected above 0 and at most {_MOST_S:g}"
            )
