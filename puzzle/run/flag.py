"""A truth that the device finds and the host reads later, so that it never waits for the queue."""

from __future__ import annotations

import torch
from torch import Tensor


class Flag:
    """One truth on its way to the host; `read` waits for what was queued before it, no more."""

    def __init__(self, found: Tensor) -> None:
        """Begin to copy a tensor of one truth."""
        self.arrived: torch.cuda.Event | None = None
        self.host = found
        if found.is_cuda:
            self.host = torch.empty((), dtype=torch.bool, pin_memory=True)
            self.host.copy_(found, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def read(self) -> bool:
        """Return it; at once where the device is past the place where it was found."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return bool(self.host.numpy())
