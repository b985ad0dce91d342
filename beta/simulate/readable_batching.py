"""Batching once more, to be read: the twin that tests hold the compiled one equal to."""

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import islice

import numpy as np

from beta.inputs.model import Model
from beta.inputs.workload import Workload
from beta.plan.placement import Placement
from beta.simulate.batches import sizes_of
from beta.simulate.fast import NOBODY, Outcome
from beta.simulate.tables import OVERHEAD_S, STAGE_PENALTY


class _Serving:
    """Groups with their clocks, models with their queues."""

    def __init__(
        self, workload: Workload, placement: Placement, models: Sequence[Model], *, idle_break: bool
    ) -> None:
        self.arrival = workload.arrival.tolist()
        slo = [float(np.float32(model.slo_s)) for model in models]
        self.deadline = [
            t + slo[m] if m >= 0 else t
            for t, m in zip(self.arrival, workload.model.tolist(), strict=True)
        ]
        self.models, self.groups, self.idle_break = models, placement.groups, idle_break
        self.sizes = [int(size) for size in sizes_of(models)]
        self.clock = [[0.0] * group.config.pp for group in placement.groups]
        self.queue = [deque[int]() for _ in models]
        self.idle = list[tuple[float, int]]()
        self.finish, self.good = list(self.arrival), [False] * len(workload)
        self.group_of = [NOBODY] * len(workload)

    def ends(self, now: float, batch: int, model: int, group: int) -> list[float] | None:
        """Return when each stage would be done, None if the batch is not profiled."""
        config = self.groups[group].config
        record = self.models[model].profile.records[config]
        if batch not in record.stage_s:
            return None
        slower, ends = 1 + STAGE_PENALTY * config.pp, list[float]()
        for free, seconds in zip(self.clock[group], record.stage_s[batch], strict=True):
            now = max(now, free) + float(np.float32(seconds * slower))
            ends.append(now)
        return ends

    def in_time(self, now: float, batch: int, model: int, group: int) -> bool:
        """Say whether a batch would meet the tightest deadline of its requests."""
        ends = self.ends(now, batch, model, group)
        due = min(self.deadline[request] for request in islice(self.queue[model], batch))
        return ends is not None and ends[-1] + OVERHEAD_S <= due

    def oldest(self, group: int) -> int | None:
        """Return the group's model whose first request waits longest."""
        waiting = [m for m in self.groups[group].models if self.queue[m]]
        return min(waiting, key=lambda m: (self.arrival[self.queue[m][0]], m), default=None)

    def serve(self, now: float, model: int | None, group: int) -> None:
        """Start the largest batch in time; refuse requests that are late even alone."""
        while model is not None:
            queue = self.queue[model]
            while queue and not self.in_time(now, 1, model, group):
                self.group_of[queue.popleft()] = group
            if queue:
                self.start(now, model, group)
                return
            model = self.oldest(group)

    def start(self, now: float, model: int, group: int) -> None:
        """Run a batch of the queue's requests."""
        queue = self.queue[model]
        taken = self.batch(now, model, group)
        ends = self.ends(now + OVERHEAD_S, len(taken), model, group)
        assert ends is not None
        self.clock[group] = ends
        for request in taken:
            queue.remove(request)
            self.finish[request], self.group_of[request] = ends[-1], group
            self.good[request] = ends[-1] <= self.deadline[request]
        heappush(self.idle, (ends[0], group))

    def batch(self, now: float, model: int, group: int) -> list[int]:
        """Return the largest batch in time, or a larger one of others if more are answered so."""
        best = [*islice(self.queue[model], self.largest(now, model, group))]
        most = None
        for size in (size for size in self.sizes_of(model, group) if size > len(best)):
            ends = self.ends(now, size, model, group)
            assert ends is not None
            end = ends[-1] + OVERHEAD_S
            others = [r for r in self.queue[model] if self.deadline[r] >= end][:size]
            if len(others) < size:
                break
            if most is None:
                most = self.outcome(now, model, best, group)
            if (count := self.outcome(now, model, others, group)) > most:
                best, most = others, count
        return best

    def largest(self, now: float, model: int, group: int) -> int:
        """Return the largest size of which so many wait and are in time."""
        size = 1
        for batch in self.sizes_of(model, group):
            if batch > len(self.queue[model]) or not self.in_time(now, batch, model, group):
                break
            size = batch
        return size

    def outcome(self, now: float, model: int, taken: list[int], group: int) -> int:
        """Return how many that wait now are in time if these go first, then the largest batches."""
        queues, clock = self.queue, self.clock[group]
        self.queue = [deque(r for r in queue if r not in taken) for queue in queues]
        ends = self.ends(now, len(taken), model, group)
        assert ends is not None
        self.clock[group], count = ends, len(taken)
        while (following := self.oldest(group)) is not None:
            now = max(now, self.clock[group][0])
            if not self.in_time(now, 1, following, group):
                self.queue[following].popleft()
                continue
            size = self.largest(now, following, group)
            ends = self.ends(now, size, following, group)
            assert ends is not None
            self.clock[group] = ends
            count += size
            for _ in range(size):
                self.queue[following].popleft()
        self.queue, self.clock[group] = queues, clock
        return count

    def sizes_of(self, model: int, group: int) -> list[int]:
        """Return the sizes above 1 that a model has in a group, ascending."""
        known = self.models[model].profile.records[self.groups[group].config].stage_s
        return [size for size in self.sizes[1:] if size in known]

    def wake(self, until: float) -> None:
        """Let groups that got free by now look for work."""
        while self.idle and self.idle[0][0] <= until:
            now, group = heappop(self.idle)
            model = self.oldest(group)
            if model is None and self.idle_break:
                return
            self.serve(now, model, group)

    def arrive(self, request: int, model: int) -> None:
        """Queue a request at its group that is free first, and serve it there if it is free."""
        now = self.arrival[request]
        self.wake(now)
        hosts = [g for g, group in enumerate(self.groups) if model in group.models]
        if hosts:
            chosen = min(hosts, key=lambda g: self.clock[g][-1])
            self.queue[model].append(request)
            if now >= self.clock[chosen][0]:
                self.serve(now, model, chosen)


def simulate(
    workload: Workload, placement: Placement, models: Sequence[Model], *, idle_break: bool = False
) -> Outcome:
    """Return what becomes of every request, exactly as `batching.simulate` does."""
    serving = _Serving(workload, placement, models, idle_break=idle_break)
    for request, model in enumerate(workload.model.tolist()):
        serving.arrive(request, model)
    while serving.idle:
        serving.wake(float("inf"))
    finish = np.array(serving.finish, np.float64)
    return Outcome(finish, np.array(serving.good, bool), np.array(serving.group_of, np.int32))
