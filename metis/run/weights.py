"""Which weights each layer has, and which dimension of each tensor parallelism splits.

The one list that the model, the run and the profiles share; it needs no torch.
"""

from math import prod
from typing import Literal, NamedTuple

from metis.inputs.model import Model


class Weight(NamedTuple):
    """A full weight: its shape, the dimension that tensor parallelism splits, its first values."""

    shape: tuple[int, ...]
    split: int | None
    start: Literal["normal", "zeros", "ones"]


def weights(model: Model, layer: int) -> dict[str, Weight]:
    """Return the full weights of one layer by name."""
    H, A, D = model.hidden_size, model.heads, model.hidden_size // model.heads
    norm = {"scale": Weight((H,), None, "ones"), "shift": Weight((H,), None, "zeros")}
    if layer == 0:
        return {
            "token": Weight((model.vocabulary, H), 0, "normal"),
            "position": Weight((model.sequence_length, H), None, "normal"),
        }
    if layer == model.layers - 1:
        return {**norm, "output": Weight((model.vocabulary, H), 0, "normal")}
    return {
        **norm,
        "qkv": Weight((3, A, D, H), 1, "normal"),
        "qkv_bias": Weight((3, A, D), 1, "zeros"),
        "merge": Weight((H, A, D), 1, "normal"),
        "merge_bias": Weight((H,), None, "zeros"),
        "mlp_scale": Weight((H,), None, "ones"),
        "mlp_shift": Weight((H,), None, "zeros"),
        "up": Weight((4 * H, H), 0, "normal"),
        "up_bias": Weight((4 * H,), 0, "zeros"),
        "down": Weight((H, 4 * H), 1, "normal"),
        "down_bias": Weight((H,), None, "zeros"),
    }


def parameters(model: Model, layer: int) -> int:
    """Return the number of parameters of one whole layer."""
    return sum(prod(weight.shape) for weight in weights(model, layer).values())
