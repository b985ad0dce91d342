"""The process groups of a layout on ranks that may be assigned to its places in any order."""

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from puzzle.inputs.layout import Layout, Place


def turned_places(layout: Layout) -> tuple[Place, ...]:
    """Return the places of a model whose first stage is on the last rank."""
    return tuple(Place(layout.pipeline - 1 - p, d, t) for p, d, t in layout.places())


class Groups:
    """A rank's place in a layout and its groups; every rank makes all groups in one order.

    `tensor` shares a stage, `data` has the replicas of this slice, `model` holds one replica.
    """

    def __init__(
        self, layout: Layout, timeout_s: float, places: Sequence[Place] | None = None
    ) -> None:
        self.layout = layout
        self.places = tuple(places or layout.places())
        self.me = dist.get_rank()
        self.place = self.places[self.me]
        self._rank_of = {place: rank for rank, place in enumerate(self.places)}
        timeout = timedelta(seconds=timeout_s)
        self.tensor = self._make(layout.tensor_groups(), timeout)
        self.data = self._make(layout.data_groups(), timeout)
        self.model = self._make(layout.model_groups(), timeout)
        self._open()

    def _open(self) -> None:
        """Use each group once, on all ranks in one order.

        NCCL connects a group's ranks when it is first used and holds their hosts until all are
        there, which in the middle of a pipeline would be never.
        """
        token = torch.zeros(1, device="cuda" if dist.get_backend() == "nccl" else "cpu")
        for group in (self.tensor, self.data, self.model):
            if group is not None:
                dist.all_reduce(token, group=group)

    def _make(self, numbers: list[tuple[int, ...]], timeout: timedelta) -> dist.ProcessGroup | None:
        """Make one group per tuple of place numbers; return this rank's, None if it is alone."""
        own = None
        for group in numbers:
            if len(group) == 1:
                continue
            ranks = [self._rank_of[self.layout.place(number)] for number in group]
            made = dist.new_group(sorted(ranks), timeout=timeout)
            if self.me in ranks:
                assert isinstance(made, dist.ProcessGroup)
                own = made
        return own

    def rank(self, stage: int) -> int:
        """Return the rank at another stage of this replica and slice."""
        return self._rank_of[Place(stage, self.place.replica, self.place.slice)]

    def rank_at(self, stage: int, replica: int, part: int) -> int:
        """Return the rank at a place."""
        return self._rank_of[Place(stage, replica, part)]

    def data_ranks(self) -> list[int]:
        """Return the ranks of this stage and slice in all replicas, by replica."""
        p, _, t = self.place
        return [self._rank_of[Place(p, d, t)] for d in range(self.layout.data)]

    @property
    def first(self) -> bool:
        """Say whether this is the first stage."""
        return self.place.stage == 0

    @property
    def last(self) -> bool:
        """Say whether this is the last stage."""
        return self.place.stage == self.layout.pipeline - 1
