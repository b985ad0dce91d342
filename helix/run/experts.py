"""A layer's experts: each token goes through a few of them, chosen by a router.

Shapes: T tokens, D hidden size, E experts, F width of an expert, A experts that a token uses.
Mixtral, arXiv 2401.04088, section 2.1.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import linear, softmax


class Experts(NamedTuple):
    """The weights of all experts of a layer."""

    router: torch.Tensor
    """[E, D]."""
    gate_up: torch.Tensor
    """[E, 2 F, D], gate and up projection stacked."""
    down: torch.Tensor
    """[E, D, F]."""


def mixture(
    x_TD: torch.Tensor, experts: Experts, active: int, renormed: bool,
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:  # fmt: skip
    """Return the sum [T, D] of the chosen experts' outputs, weighted by the router's shares.

    `renormed`: the shares of the experts chosen add up to 1.
    """
    shares = softmax(linear(x_TD, experts.router), dim=-1, dtype=torch.float32)
    share_TA, chosen_TA = shares.topk(active, dim=-1)
    if renormed:
        share_TA = share_TA / share_TA.sum(-1, keepdim=True)
    share_TA = share_TA.to(x_TD.dtype)
    out_TD = torch.zeros_like(x_TD)
    for expert in chosen_TA.unique().tolist():
        tokens, places = torch.where(chosen_TA == expert)
        gate, up = linear(x_TD[tokens], experts.gate_up[expert]).chunk(2, dim=-1)
        found = linear(activation(gate) * up, experts.down[expert])
        out_TD.index_add_(0, tokens, found * share_TA[tokens, places, None])
    return out_TD
