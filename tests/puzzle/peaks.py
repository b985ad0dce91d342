"""Bytes of tensors that are alive on a rank: counted as operations make them, not sampled."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from puzzle.run.readers import readers_of
from puzzle.run.settings import Job
from puzzle.run.train import Trainer


class Alive(TorchDispatchMode):
    """Counts storages from the operation that makes them until they are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor):
                self.see(value.untyped_storage())
        return out

    def see(self, storage: torch.UntypedStorage) -> None:
        """Count a storage once, until it is gone."""
        key = storage._cdata
        if key in self.known:
            return
        self.known[key] = storage.nbytes()
        self.bytes += storage.nbytes()
        self.most = max(self.most, self.bytes)
        weakref.finalize(storage, self.gone, key)

    def gone(self, key: int) -> None:
        self.bytes -= self.known.pop(key)

    def peak(self) -> int:
        """Return the most since the last call."""
        most, self.most = self.most, self.bytes
        return most


def peaks(rank: int, report: object, jobs: list[Job]) -> list[dict[str, int]]:
    """Return, job by job, a rank's largest bytes in each stage of its second step."""
    found: list[dict[str, int]] = []
    for job in jobs:
        with Alive() as alive:
            trainer = Trainer(job, torch.device("cpu"), readers_of(job))
            trainer.step(0)
            alive.peak()
            made = {"states": alive.bytes}
            trainer._generate(1)
            made["generation"] = alive.peak()
            trainer._infer(trainer.answers)
            made["inference"] = alive.peak()
            trainer._learn(trainer.answers, 1)
            made["training"] = alive.peak()
        found.append(made)
        del trainer
    return found
