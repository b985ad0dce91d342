"""Counts what would hold the host for the device, on CPU tensors, by torch's dispatch."""

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_READS = {"aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.is_nonzero"}
"""Operations whose result the host needs: `.item()`, `float()`, `bool()`, masks as indices."""


class HostWaits(TorchDispatchMode):
    """Counts operations that read a tensor's values on the host.

    On a CPU `.cpu()`, `.tolist()` and `.numpy()` reach no operation: `.tolist()` reads one value
    after the other, the others have to be found by reading.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(func.overloadpacket)
        if name in _READS:
            self.found[name] += 1
        if name in ("aten.index", "aten.index_put_") and _masks(args[1]):
            self.found[f"{name} by a mask"] += 1
        return func(*args, **(kwargs or {}))


def _masks(indices: Any) -> bool:
    return any(
        isinstance(one, torch.Tensor) and one.dtype in (torch.bool, torch.uint8) for one in indices
    )
