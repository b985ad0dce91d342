"""Profiles as range tables: time and memory of any layer range, for any batch.

Layer ranges are half open: [first, end); tables have shape (L + 1, L + 1), indexed [first, end].
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from metis.inputs.profile import LayerProfile, ProfileKey, Profiles
from metis.inputs.savings import Recompute
from metis.plan.balance import split_samples

Table = NDArray[np.float64]


class MissingProfile(LookupError):
    """A profile that a strategy needs is not there."""


def stopped(missing: MissingProfile) -> InputError:
    """Return what to tell where the original stops at a missing profile."""
    return InputError(
        f"profile {missing} is missing; the original stops here with a KeyError"
        " (use mode = 'strict', which interpolates)"
    )


def range_sums(values: Sequence[float] | Table) -> Table:
    """Return table[first, end] = sum of values[first:end], added from left to right."""
    count = len(values)
    table = np.zeros((count + 1, count + 1))
    for first in range(count):
        table[first, first + 1 :] = np.cumsum(np.asarray(values[first:], dtype=np.float64))
    return table


def range_largest(values: Table) -> Table:
    """Return table[first, end] = the largest of values[first:end], 0 where there is none."""
    count = len(values)
    table = np.zeros((count + 1, count + 1))
    for first in range(count):
        table[first, first + 1 :] = np.maximum.accumulate(values[first:])
    return table


def binary_digits(number: int) -> list[int]:
    """Return the powers of two that make up a number, largest first."""
    return [1 << k for k in range(number.bit_length() - 1, -1, -1) if number >> k & 1]


def total(values: Sequence[float]) -> float:
    """Return the sum, added from left to right (Python's own sum differs between versions)."""
    result = 0.0
    for value in values:
        result += value
    return result


class ProfileTables:
    """What the profiles say of any layer range, tensor degree and batch; tables are kept."""

    def __init__(self, profiles: Profiles) -> None:
        self.profiles = profiles
        self._tables: dict[object, Table] = {}

    def zeros(self) -> Table:
        """Return a table of zeros, always the same."""
        return self._tables.setdefault("nothing", np.zeros((self.profiles.layers + 1,) * 2))

    def slowest_ms(self, members: frozenset[str], tp: int) -> float:
        """Return the time per sample of a tensor group's slowest member."""
        smallest = [self.profiles.batch_sizes(device, tp) for device in members]
        if not all(smallest):
            raise MissingProfile(f"of {sorted(members)} at tp {tp}")
        return max(
            sum(self.profiles[ProfileKey(device, tp, sizes[0])].layer_ms) / sizes[0]
            for device, sizes in zip(members, smallest, strict=True)
        )

    def slowest_table(
        self, kinds: tuple[tuple[tuple[str, ...], int, int], ...], recompute: Recompute = "none"
    ) -> Table:
        """Return max over kinds (member types, samples, tp) of the range sums."""
        key = ("time", kinds, recompute)
        if key not in self._tables:
            tables = [
                range_sums(np.max([self._times(d, tp, n, recompute) for d in members], axis=0))
                for members, n, tp in kinds
            ]
            self._tables[key] = np.max(tables, axis=0)
        return self._tables[key]

    def _times(self, device: str, tp: int, samples: int, recompute: Recompute) -> Table:
        """Return each layer's time, with what it does again."""
        entry = self.profile(device, tp, samples)
        times = np.asarray(entry.layer_ms)
        return times if recompute == "none" else times + np.asarray(entry.again_ms[recompute])

    def profile(self, device: str, tp: int, samples: int) -> LayerProfile:
        """Return the profile of any batch, linear between the two profiled around it."""
        key = ProfileKey(device, tp, samples)
        if key in self.profiles:
            return self.profiles[key]
        sizes = self.profiles.batch_sizes(device, tp)
        above = [bs for bs in sizes if bs > samples]
        below = [bs for bs in sizes if bs < samples]
        if not above or not below:
            raise MissingProfile(key)
        low, high = (self.profiles[ProfileKey(device, tp, bs)] for bs in (below[-1], above[0]))
        weight = (samples - below[-1]) / (above[0] - below[-1])

        def between(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
            return tuple(x + (y - x) * weight for x, y in zip(a, b, strict=True))

        return LayerProfile(
            layer_ms=between(low.layer_ms, high.layer_ms),
            memory_mb=between(low.memory_mb, high.memory_mb),
            parameters_bytes=low.parameters_bytes,
            forward_backward_ms=low.forward_backward_ms
            + (high.forward_backward_ms - low.forward_backward_ms) * weight,
            optimizer_ms=low.optimizer_ms,
            batch_generator_ms=low.batch_generator_ms,
            again_ms={
                kind: between(times, high.again_ms[kind]) for kind, times in low.again_ms.items()
            },
        )

    def balanced(self, types: Sequence[str], dp: int, tp: int, per_batch: int) -> tuple[int, ...]:
        """Split samples over replicas by the speed of each one's first device."""
        width = len(types) // dp
        speeds = [1.0 / total(self.exact(types[i * width], tp, 1).layer_ms) for i in range(dp)]
        return split_samples(speeds, per_batch)

    def digits_ms(self, device: str, tp: int, samples: int) -> float:
        """Return the whole model's time for a batch, one run per binary digit (compat)."""
        whole = 0.0
        for digit in binary_digits(samples):
            whole += total(self.exact(device, tp, digit).layer_ms)
        return whole

    def digits_table(self, device: str, tp: int, samples: int) -> Table:
        """Return the range sums of time for a batch, one run per binary digit (compat)."""
        key = ("digits", device, tp, samples)
        if key not in self._tables:
            table = np.zeros((self.profiles.layers + 1,) * 2)
            for digit in binary_digits(samples):
                table = table + self.sums("time", device, tp, digit)
            self._tables[key] = table
        return self._tables[key]

    def exact(self, device: str, tp: int, bs: int) -> LayerProfile:
        """Return a profile that must be there as it is (compat)."""
        key = ProfileKey(device, tp, bs)
        if key not in self.profiles:
            raise MissingProfile(key)
        return self.profiles[key]

    def sums(self, what: Literal["time", "memory"], device: str, tp: int, bs: int) -> Table:
        """Return the range sums of time (ms) or memory (MB) of one profile."""
        key = (what, device, tp, bs)
        if key not in self._tables:
            entry = self.exact(device, tp, bs)
            self._tables[key] = range_sums(entry.layer_ms if what == "time" else entry.memory_mb)
        return self._tables[key]

    def activation_memory(
        self, device: str, tp: int, samples: int, recompute: Recompute = "none"
    ) -> Table:
        """Return activations of one micro-batch, from the growth of memory with the batch."""
        key = ("activations", device, tp, samples, recompute)
        if key not in self._tables:
            per_sample = self.activations_of_a_sample(device, tp, recompute)
            self._tables[key] = range_sums(per_sample * samples)
        return self._tables[key]

    def activations_of_a_sample(self, device: str, tp: int, recompute: Recompute = "none") -> Table:
        """Return what each layer keeps of one sample for its backward pass, MB."""
        whole = self._activations_of_a_sample(device, tp)
        if recompute == "none":
            return whole
        assert self.profiles.savings is not None, "plans recompute only where that is known"
        return whole * self.profiles.savings.kept(tp, recompute)

    def _activations_of_a_sample(self, device: str, tp: int) -> Table:
        """Return each layer's, MB; as the model has them where one batch alone is profiled."""
        if (device, tp) in self.profiles.activations_mb:
            return np.asarray(self.profiles.activations_mb[device, tp])
        sizes = self.profiles.batch_sizes(device, tp)
        low, high = (self.profiles[ProfileKey(device, tp, bs)] for bs in (sizes[0], sizes[-1]))
        growth = np.asarray(high.memory_mb) - np.asarray(low.memory_mb)
        return np.maximum(growth, 0.0) / max(sizes[-1] - sizes[0], 1)

    def static_memory(
        self, device: str, tp: int, samples: int, recompute: Recompute = "none", shards: int = 1
    ) -> Table:
        """Return the profiled memory without the one micro-batch of activations in it.

        The optimizer's states are divided by `shards`; what one layer at a time holds more while
        it is recomputed is added, that of the largest one.
        """
        key = ("static", device, tp, samples, recompute, shards)
        if key not in self._tables:
            memory = range_sums(self.profile(device, tp, samples).memory_mb)
            static = memory - self.activation_memory(device, tp, samples)
            if shards > 1:
                assert self.profiles.savings is not None, "shards only where their size is known"
                static = static * self.profiles.savings.held(shards)
            if recompute != "none":
                whole, kept = (
                    self.activations_of_a_sample(device, tp, kind) for kind in ("none", recompute)
                )
                static = static + range_largest(samples * (whole - kept))
            self._tables[key] = static
        return self._tables[key]
