"""What a run does for memory, at no change of its results."""

from typing import NamedTuple


class Savings(NamedTuple):
    """As `[choice]` has them."""

    recompute: bool = False
    shard_optimizer: bool = False


NONE = Savings()
