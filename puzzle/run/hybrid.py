"""DeepSpeed's hybrid engine: the baseline's generation by inference kernels, on GPUs.

The engine gathers the actor and calls transformers' `generate`. A logits processor makes each draw
and leaves its token as the only choice, so the sequences are those of every other engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from puzzle.inputs.ppo import Sampling
from puzzle.run.generate import Prompts, Special
from puzzle.run.sample import distribution, pick


def why_not(backend: str, *, wanted: bool = True) -> str:
    """Say why the hybrid engine is not used here; empty where it is."""
    if not wanted:
        return "running.hybrid_engine is false"
    if backend != "nccl" or not torch.cuda.is_available():
        return "its inference kernels are for CUDA devices only"
    from torch.utils import cpp_extension

    if cpp_extension.CUDA_HOME is None:
        return "its kernels are compiled on first use, and no CUDA toolkit (nvcc) is here"
    return ""


def told(backend: str, *, wanted: bool = True) -> str:
    """Return one line on how the baseline generates."""
    reason = why_not(backend, wanted=wanted)
    if reason:
        return f"DeepSpeed generates without its hybrid engine: {reason}"
    return "DeepSpeed generates by its hybrid engine"


def settings(length: int) -> dict[str, Any]:
    """Return the engine's configuration: all weights gathered at once, as DeepSpeed-Chat's runs."""
    return {
        "enabled": True,
        "max_out_tokens": length,
        "inference_tp_size": 1,
        "release_inference_cache": False,
        "pin_parameters": True,
    }


class Generated(NamedTuple):
    """Whole sequences N x S, which tokens are real, log-probabilities of the answers N x A.

    As `Answers`, but without cuts of the distribution.
    """

    ids: Tensor
    valid: Tensor
    log_probs: Tensor


class Drawer:
    """A logits processor of transformers: draws each token by seed, sequence and place."""

    def __init__(self, prompts: Prompts, sampling: Sampling, special: Special, seed: int) -> None:
        self.numbers, self.sampling, self.seed = prompts.numbers, sampling, seed
        self.special, self.valid = special, [prompts.valid]
        self.ended = torch.zeros_like(prompts.numbers, dtype=torch.bool)
        self.log_probs: list[Tensor] = []

    def __call__(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Return logits that leave one token; notes its log-probability."""
        logits = distribution(logits, self.sampling)
        places = torch.full_like(self.numbers, ids.shape[1])
        tokens = pick(logits, self.seed, self.numbers, places)
        tokens = tokens.where(~self.ended, torch.full_like(tokens, self.special.pad))
        chosen = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        self.log_probs.append(chosen * ~self.ended)
        self.valid.append((~self.ended).long()[:, None])
        if self.sampling.stop_at_end:
            self.ended |= self.special.ending(tokens)
        only = torch.full_like(logits, -torch.inf)
        return only.scatter_(1, tokens[:, None], 0.0)


def generate(
    call: Callable[..., Tensor], prompts: Prompts, answer: int, drawer: Drawer
) -> Generated:
    """Generate `answer` tokens by an engine's or a model's `generate`."""
    ids = call(
        input_ids=prompts.ids,
        attention_mask=prompts.valid,
        max_new_tokens=answer,
        do_sample=False,
        use_cache=True,
        eos_token_id=None,
        pad_token_id=drawer.special.pad,
        logits_processor=[drawer],
    )
    return Generated(ids, torch.cat(drawer.valid, 1), torch.stack(drawer.log_probs, 1))
