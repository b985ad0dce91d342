"""The baseline's models: transformers' LLaMA with this package's weights, and DeepSpeed itself."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from puzzle.inputs.model import SCORE, Llama, Role, tensors
from puzzle.plan.slices import Slice
from puzzle.run.weights import Reader

SHARED_MEMORY = "deepspeed_shm_comm"
"""An extension that DeepSpeed compiles on its first use on CPUs: minutes, and a build that was
killed leaves a lock on which every later run waits for ever. Collectives through gloo need none."""


@contextmanager
def deepspeed() -> Iterator[Any]:
    """Yield the deepspeed module, told to compile nothing."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning)  # of torch, about deepspeed's calls
    import deepspeed as module
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    operators: dict[str, bool] = module.ops.__compatible_ops__
    operators[SHARED_MEMORY] = False
    yield module


class _Critic(torch.nn.Module):
    """A LLaMA body with a scalar head."""

    def __init__(self, config: Any) -> None:
        from transformers import LlamaModel

        super().__init__()
        self.model = LlamaModel(config)
        self.score = torch.nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        out = self.model(input_ids=ids, attention_mask=mask, position_ids=positions)
        return self.score(out.last_hidden_state)[..., 0].float()


def hugging_face(model: Llama, role: Role, read: Reader) -> torch.nn.Module:
    """Return transformers' LLaMA of a role with a reader's weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    options: dict[str, Any] = {
        "hidden_size": model.hidden,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.key_heads,
        "vocab_size": model.vocabulary,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_base,
        "tie_word_embeddings": False,
        "attn_implementation": "sdpa",
    }
    config = LlamaConfig(**options)
    made = LlamaForCausalLM(config) if role == "actor" else _Critic(config)
    values = {
        t.name: read(Slice(t, 0, 0 if t.axis is None else t.shape[t.axis]))
        for t in tensors(model, role)
    }
    assert role == "actor" or SCORE in values
    made.load_state_dict(values)
    return made
