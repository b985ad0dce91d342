"""What a run keeps in memory by how it computes: types, and what S leaves for T."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vocab_parallel.inputs.experiment import (
    Dtype,
    Gradients,
    Keep,
    Pipeline,
    Recompute,
    Training,
)

_BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}


class Holdings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings that memory and the replicas' sums depend on."""

    dtype: Dtype = "float32"
    gradients: Gradients = "float32"
    keep: Keep = "softmax"
    block: Annotated[int, msgspec.Meta(ge=0)] = 0
    recompute: Recompute = "none"
    recompute_layers: Annotated[int, msgspec.Meta(ge=1)] = 1
    replicas: Annotated[int, msgspec.Meta(ge=1)] = 1
    shard_optimizer: bool = False
    sequence_parallel: bool = False

    @staticmethod
    def of(training: Training, pipeline: Pipeline) -> Holdings:
        """Return those of an experiment."""
        return Holdings(
            dtype=training.dtype,
            gradients=training.gradients,
            keep=training.keep,
            block=training.block,
            recompute=training.recompute,
            recompute_layers=training.recompute_layers,
            replicas=training.data_parallel,
            shard_optimizer=training.shard_optimizer,
            sequence_parallel=pipeline.sequence_parallel,
        )

    @property
    def value_bytes(self) -> int:
        """Bytes of a weight or activation."""
        return _BYTES[self.dtype]

    @property
    def statistics_bytes(self) -> int:
        """Bytes of a number of the softmax: 4, or 8 where values have 8."""
        return max(4, self.value_bytes)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of a parameter's gradient as it is added up."""
        return self.value_bytes if self.gradients == "dtype" else self.statistics_bytes

    @property
    def parameter_bytes(self) -> float:
        """Bytes of a parameter: weight, gradient, main weight (of 16 bit), Adam's two moments."""
        main = self.statistics_bytes if self.value_bytes < 4 else 0
        optimizer = main + 2 * self.statistics_bytes
        shared = self.replicas if self.shard_optimizer else 1
        return self.value_bytes + self.gradient_bytes + optimizer / shared
