"""What other engines' switches move and hold, in closed form (specification section 6).

All in fractions of M, the bytes of the actor's weights; `received` is per device.
"""

from math import gcd
from typing import NamedTuple

from puzzle.inputs.layout import Layout


class Volume(NamedTuple):
    """Bytes that a device receives, and weights it holds at the peak, as fractions of M."""

    engine: str
    received: float
    peak: float
    redundant: float
    group: str


def deepspeed_chat(train: Layout) -> Volume:
    """ZeRO-3 with the hybrid engine: every device gathers the whole model."""
    w = train.world
    return Volume("DeepSpeed-Chat", (w - 1) / w, 1.0, 1 / w, "all devices")


def hybridflow_v(train: Layout) -> Volume:
    """HybridFlow's plain all-gather inside a training replica."""
    n = train.tensor * train.pipeline
    return Volume("HybridFlow-V", (n - 1) / n, 1.0, 1 / n, "a training replica")


def hybridflow(train: Layout, generate: Layout) -> Volume:
    """HybridFlow's 3D-HybridEngine: all-gather inside micro replicas, (tp - t_g p_g)/(t_g p_g t p).

    Defined for T' | T and P' | P, where the training shard is part of the generation shard.
    """
    n, g = train.tensor * train.pipeline, generate.tensor * generate.pipeline
    return Volume("HybridFlow", max(0.0, (n - g) / (g * n)), 1 / g, 0.0, "micro replicas")


def puzzle_original(train: Layout, generate: Layout) -> Volume:
    """The original's switch: rank order, both copies kept, layers cut evenly."""
    n = train.tensor * train.pipeline
    k = generate.tensor // gcd(train.tensor, generate.tensor)
    share = 1 / k if train.tensor == 1 and train.data == 1 else 0.5 / k
    return Volume("PUZZLE as released", (1 - share) / n, 2 / n, 1 / n, "aligned groups")


def puzzle_interleaved(train: Layout, generate: Layout) -> Volume:
    """The interleaved mapping with resident slices used where they are."""
    n = train.tensor * train.pipeline
    k = train.pipeline // generate.pipeline
    return Volume(
        "interleaved", (1 - 1 / k) / n, (2 - 1 / k) / n, (1 - 1 / k) / n, f"groups of {k}"
    )
