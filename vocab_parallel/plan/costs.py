"""What a generator knows of pass times: only their ratios, which decide the order."""

import msgspec

from common.errors import InputError


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Relative times of a chunk's forward pass and of its whole backward pass (B and W together).

    The generators of 1F1B schedules take forward : backward; V-Half splits the backward pass in
    B and W, each half of it.
    """

    forward: float = 1.0
    backward: float = 2.0

    def __post_init__(self) -> None:
        """Refuse times for which the published orders are not defined."""
        if not 0 < self.forward <= self.backward < float("inf"):
            raise InputError(
                f"costs: forward {self.forward} and backward {self.backward}, expected"
                " 0 < forward <= backward"
            )


def check_size(ranks: int, batches: int) -> None:
    """Refuse a pipeline of no ranks or no micro-batches."""
    if ranks < 1 or batches < 1:
        raise InputError(
            f"{ranks} pipeline ranks and {batches} micro-batches, expected 1 or more of each"
        )
