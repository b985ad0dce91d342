"""What no plan is below: time by a number of micro-batches, and memory, from profiles alone.

A stage with n_k devices of type k that takes E ms for a micro-batch of m samples holds at most
E / m * sum_k n_k / c_k blocks, where c_k is the least device-time a sample of a block takes on type
k at any degree and batch. So the slowest stage takes at least m * blocks / sum_k N_k / c_k.
A layer takes at least the least degree * memory of any type, degree and batch.
"""

import numpy as np

from metis.inputs.profile import ProfileKey
from metis.plan.lookups import MissingProfile, ProfileTables
from metis.plan.problem import Problem
from metis.plan.tables import Floats


class Floor:
    """The bounds of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self._lookup = problem, ProfileTables(problem.profiles)
        self._known = dict[tuple[str, int], tuple[float, float]]()
        machines = problem.cluster.machines()
        self.devices = {
            device: sum(node.devices for node in machines if node.device == device)
            for device in problem.node_types
        }

    def memory_suffices(self) -> bool:
        """Say whether all devices together hold every layer once, at its least."""
        problem = self.problem
        room = sum(node.memory_mb * node.devices for node in problem.cluster.machines())
        entries = [
            key.tp * (np.array(problem.profiles[key].memory_mb) - self._saved_mb(key))
            for key in problem.profiles
            if key.device in self.devices and key.tp <= problem.max_tp
        ]
        needed = sum(min(layer) for layer in zip(*entries, strict=True))
        return needed <= room * problem.memory_fraction

    def _saved_mb(self, key: ProfileKey) -> Floats:
        """Return what recomputation can save of each layer's memory, MB.

        Shares of the optimizer's states make up the whole again over all devices.
        """
        whole, kept = (
            self._lookup.activations_of_a_sample(key.device, key.tp, kind)
            for kind in ("none", self.problem.savers.recompute[-1])
        )
        return key.bs * (whole - kept)

    def cost(self, batches: int, devices: dict[str, int] | None = None) -> float:
        """Return what no plan with so many micro-batches is below, ms; infinite if none is.

        On so many devices of each type, or else on all.
        """
        samples = self.problem.model.global_batch // batches
        rates, fastest, fixed = 0.0, float("inf"), float("inf")
        for device, count in (devices or self.devices).items():
            if not count:
                continue
            device_ms, block_ms = self._least(device, samples)
            if device_ms == float("inf"):
                continue
            rates += count / device_ms
            fastest = min(fastest, block_ms)
            fixed = min(fixed, self.problem.profiles.base(device).batch_generator_ms)
        if rates == 0.0:
            return float("inf")
        blocks = self.problem.model.layers - 2
        pace = samples * blocks / rates
        return (batches - 1) * pace + max(pace, blocks * fastest) + batches * fixed

    def _least(self, device: str, samples: int) -> tuple[float, float]:
        """Return the least device-time a sample of a block, and the least time of a block, ms."""
        key = device, min(samples, self.problem.max_batch_size)
        if key not in self._known:
            self._known[key] = self._least_of(*key)
        return self._known[key]

    def _least_of(self, device: str, most: int) -> tuple[float, float]:
        profiles, model = self.problem.profiles, self.problem.model
        device_ms = block_ms = float("inf")
        for tp in profiles.degrees(device):
            if tp > self.problem.max_tp or not model.splits_over(tp):
                continue
            for n in {*(bs for bs in profiles.batch_sizes(device, tp) if bs <= most), most, 1}:
                try:
                    times = self._lookup.profile(device, tp, n).layer_ms
                except MissingProfile:
                    continue
                least = min(times[1:-1])
                device_ms, block_ms = min(device_ms, least * tp / n), min(block_ms, least)
        return device_ms, block_ms
