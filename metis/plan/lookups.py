"""Profiles as range tables: time and memory of any layer range, for any batch.

Layer ranges are half open: [first, end); tables have shape (L + 1, L + 1), indexed [first, end].
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from metis.inputs.profile import LayerProfile, ProfileKey, Profiles
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

    def slowest_table(self, kinds: tuple[tuple[tuple[str, ...], int, int], ...]) -> Table:
        """Return max over kinds (member types, samples, tp) of the range sums."""
        if ("time", kinds) not in self._tables:
            tables = [
                range_sums(np.max([self.profile(d, tp, n).layer_ms for d in members], axis=0))
                for members, n, tp in kinds
            ]
            self._tables["time", kinds] = np.max(tables, axis=0)
        return self._tables["time", kinds]

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

    def activation_memory(self, device: str, tp: int, samples: int) -> Table:
        """Return activations of one micro-batch, from the growth of memory with the batch."""
        key = ("activations", device, tp, samples)
        if key not in self._tables:
            sizes = self.profiles.batch_sizes(device, tp)
            low, high = (self.profiles[ProfileKey(device, tp, bs)] for bs in (sizes[0], sizes[-1]))
            growth = np.asarray(high.memory_mb) - np.asarray(low.memory_mb)
            per_sample = np.maximum(growth, 0.0) / max(sizes[-1] - sizes[0], 1)
            self._tables[key] = range_sums(per_sample * samples)
        return self._tables[key]

    def static_memory(self, device: str, tp: int, samples: int) -> Table:
        """Return the profiled memory without the one micro-batch of activations in it."""
        key = ("static", device, tp, samples)
        if key not in self._tables:
            memory = range_sums(self.profile(device, tp, samples).memory_mb)
            self._tables[key] = memory - self.activation_memory(device, tp, samples)
        return self._tables[key]
