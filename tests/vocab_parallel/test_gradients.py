"""Gradients of a rank in one tensor: summed, measured and scaled without copies of their size."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vocab_parallel.run.gradients import BUCKET, square_sum
from vocab_parallel.run.weights import Store, Weight


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that is made, views of a given one aside."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.given, self.bytes = given.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        storage = made.untyped_storage() if isinstance(made, torch.Tensor) else None
        if storage is not None and storage.data_ptr() != self.given:
            self.bytes = max(self.bytes, storage.nbytes())
        return made


@pytest.mark.parametrize("size", [1, BUCKET - 1, BUCKET, 3 * BUCKET + 5])
def test_the_norm_is_exact_and_copies_a_bucket_at_most(size: int) -> None:
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(size))
    with Largest(gradient) as largest:
        found = float(square_sum(gradient))
    assert found == pytest.approx(float(np.square(gradient.numpy().astype(np.float64)).sum()))
    assert 0 < largest.bytes <= 8 * BUCKET


def test_packed_gradients_are_parts_of_one_tensor() -> None:
    store = Store(torch.bfloat16, torch.device("cpu"), 0)
    for name, shape in (("bias", (3,)), ("matrix", (5, 7)), ("scale", (64,))):
        store.add(Weight(name, shape))
    store.pack()
    for number, gradient in enumerate(store.gradients.values()):
        gradient += number + 1.0
        assert gradient.is_contiguous()
        assert gradient.storage_offset() % 64 == 0
    assert {name: tuple(g.shape) for name, g in store.gradients.items()} == {
        "bias": (3,),
        "matrix": (5, 7),
        "scale": (64,),
    }
    assert float(store.flat.sum()) == 3 * 1 + 35 * 2 + 64 * 3
    assert store.flat.dtype == torch.float32
    store.clear_gradients()
    assert all(not gradient.any() for gradient in store.gradients.values())
