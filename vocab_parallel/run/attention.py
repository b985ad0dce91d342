"""Causal attention of grouped heads: windows, soft-capped scores.

Shape suffixes: N samples, A heads, T tokens, D head width.
"""

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field knows
from torch import Tensor

from vocab_parallel.inputs.model import Model


def attend(q_NATD: Tensor, k_NATD: Tensor, v_NATD: Tensor, model: Model, layer: int) -> Tensor:
    """Return the attention's output; keys and values may have fewer heads."""
    scale = model.attention_scale or model.head**-0.5
    window = model.window(layer)
    alike = q_NATD.shape[1] // k_NATD.shape[1]
    plain = not model.attention_softcap and window >= q_NATD.shape[-2]
    # On a GPU only the kernels of 16 bit take grouped heads as they are.
    grouped = alike > 1 and plain and (not q_NATD.is_cuda or q_NATD.element_size() == 2)
    if alike > 1 and not grouped:
        k_NATD, v_NATD = (part.repeat_interleave(alike, 1) for part in (k_NATD, v_NATD))
    if plain:
        return F.scaled_dot_product_attention(
            q_NATD, k_NATD, v_NATD, is_causal=True, scale=scale, enable_gqa=grouped
        )
    seen_TT = _seen(q_NATD, window)
    if not model.attention_softcap:
        return F.scaled_dot_product_attention(q_NATD, k_NATD, v_NATD, seen_TT, scale=scale)
    cap = model.attention_softcap
    scores_NATT = cap * torch.tanh(q_NATD @ k_NATD.transpose(-1, -2) * (scale / cap))
    exact = torch.float64 if q_NATD.dtype == torch.float64 else torch.float32
    weights_NATT = scores_NATT.masked_fill(~seen_TT, -torch.inf).softmax(-1, dtype=exact)
    return weights_NATT.to(v_NATD.dtype) @ v_NATD


def _seen(q_NATD: Tensor, window: int) -> Tensor:
    """Return which tokens (columns) a token (row) attends to: itself and those before it."""
    places_T = torch.arange(q_NATD.shape[-2], device=q_NATD.device)
    apart_TT = places_T[:, None] - places_T
    return (apart_TT >= 0) & (apart_TT < window)
