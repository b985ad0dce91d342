"""Starts a runtime's ranks with the ordered group in place of gloo."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.ordered.desk import Desk, Stall, found_stall, make_counters

PATIENCE_S = 300.0
"""How long a rank waits for another: stalls are found without it."""


def run_ordered(
    run_ranks: Callable[..., list[Any]],
    task: Callable[..., Any],
    world: int,
    *arguments: object,
    eager: bool = True,
    connects: bool = True,
) -> list[Any]:
    """Run a task by a package's `run_ranks` on ranks that keep NCCL's rules.

    `eager` and `connects` as in `tests.ordered.group.Rules`. Raises `Stall` with the heads of the
    queues where the ranks would wait for ever.
    """
    with tempfile.TemporaryDirectory(prefix="ordered-") as folder:
        make_counters(Path(folder), world)
        try:
            return run_ranks(
                _live, world, folder, (eager, connects), task, arguments, timeout_s=PATIENCE_S
            )
        except Exception as error:
            text = found_stall(Path(folder))
            if text:
                raise Stall(text) from error
            raise


def _live(
    rank: int,
    report: object,
    folder: str,
    rules: tuple[bool, bool],
    task: Callable[..., Any],
    arguments: tuple[object, ...],
) -> Any:
    """Put the ordered group in the place of the one that the rank has joined, and do the task."""
    import torch.distributed as dist

    from tests.ordered.backend import register
    from tests.ordered.group import NAME, Rules

    world = dist.get_world_size()
    store = dist.PrefixStore(NAME, dist.distributed_c10d._get_default_store())
    dist.barrier()
    dist.destroy_process_group()
    register(Desk(Path(folder), rank, world), Rules(*rules))
    dist.init_process_group(
        NAME, store=store, rank=rank, world_size=world, timeout=timedelta(seconds=PATIENCE_S)
    )
    dist.barrier()
    return task(rank, report, *arguments)
