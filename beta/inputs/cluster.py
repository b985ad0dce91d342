"""The cluster: equal devices with a memory budget each (AlpaServe §6.1: V100s of 16 GB)."""

import msgspec

from common.errors import InputError

GIB = 2**30
PAPER_BUDGET = 13 * GIB
"""Bytes per device for weights in all of the paper's experiments; the rest is working memory."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that models are placed on."""

    devices: int
    memory_bytes: float = PAPER_BUDGET
    """What weights may fill on each device."""
    devices_per_node: int = 8
    """Groups larger than a node must be whole nodes."""

    def __post_init__(self) -> None:
        if self.devices < 1 or self.devices_per_node < 1 or not self.memory_bytes > 0:
            raise InputError(
                f"cluster: devices ({self.devices}), devices_per_node ({self.devices_per_node})"
                f" and memory_bytes ({self.memory_bytes}) must be positive"
            )
