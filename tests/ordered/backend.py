"""Makes the ordered group known to torch as a backend."""

from __future__ import annotations

import torch.distributed as dist

from tests.ordered.desk import Desk
from tests.ordered.group import NAME, Ordered, Rules


def register(desk: Desk, rules: Rules) -> None:
    """Make the backend known to this process, and batches one entry of it."""
    dist.Backend.register_backend(
        NAME,
        lambda options, _: Ordered(options, desk, rules),
        extended_api=True,
        devices=["cpu"],
    )
    # torch batches messages for its own type of group only.
    for module in (dist, dist.distributed_c10d):
        module.batch_isend_irecv = _batched  # type: ignore[attr-defined]


def _batched(operations: list[dist.P2POp]) -> list[dist.Work]:
    group = operations[0].group or dist.group.WORLD
    assert isinstance(group, Ordered)
    return group.batch(operations)
