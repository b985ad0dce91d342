"""A group's line: who is admitted, what each stage is handed next, what is dropped before it.

The rules of back-pressure without any clock of their own: every call is told the time, so the
service (`pipeline`) and a test with made-up time run the same code.

Work waits here and not at the workers: a stage is handed one piece more than it runs, and nothing
whose successor stage has not kept up. So each stage's work is looked at once more just before it
would start, for all `op` workers alike, and what can no longer be answered in time is dropped.

A piece of work is a batch of one model's requests, formed as late as it can be, by the simulators'
rule (`simulate/batches`): ahead of time only if there is no larger size. Admission takes those
ahead in the line to be answered in their most efficient batches, so it refuses what is hopeless.
"""

from collections import deque

import numpy as np

from beta.inputs.arrays import Floats
from beta.run.speeds import Speeds, StageSeconds
from beta.simulate.admission import admit, book, book_all
from beta.simulate.batches import Lines, Pipe, form, shares

AHEAD = 2
"""Pieces of work at a stage at most: one that runs, one that is there when it ends."""
TRY_S, TRY_SHARE = 1.0, 4.0
"""A model whose learnt latency passes its target is tried again in an idle group, once nothing was
learnt of it for a second and for four times its latency: it takes a fifth of the time at most."""


class Request:
    """A request in the line."""

    def __init__(self, model: int, deadline: float, *, trial: bool = False) -> None:
        self.model, self.deadline, self.trial = model, deadline, trial


class Batch:
    """Requests of one model on their way through the stages."""

    def __init__(self, requests: list[Request]) -> None:
        self.requests, self.model = requests, requests[0].model
        self.trial = requests[0].trial
        self.deadline = max(request.deadline for request in requests)
        """When the last of them is lost."""
        self.dropped = False
        self.handed_at = 0.0

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.requests)


class Stage:
    """What waits before a stage, and what it was handed."""

    def __init__(self) -> None:
        self.waiting, self.inside = deque[Batch](), deque[Batch]()
        self.free_at = -np.inf
        """When it was last done."""


class Line:
    """All work of a group; times are seconds of one clock, deadlines too."""

    def __init__(self, given: StageSeconds, *, margin_s: float, learning: bool = True) -> None:
        self.margin_s = margin_s
        self.speeds = Speeds(given, learning=learning)
        self.queue = deque[Request]()
        """Who waits for the first stage, in order of arrival."""
        self.sizes = np.array(sorted({b for batches in given.values() for b in batches}), np.int64)
        stages = max(len(seconds) for batches in given.values() for seconds in batches.values())
        self.stages = [Stage() for _ in range(stages)]
        self.row = {model: row for row, model in enumerate(given)}
        self._clock: Floats | None = None
        self._share: Floats | None = None
        self._warm_up()

    def _warm_up(self) -> None:
        """Compile now: the first request must not wait for it."""
        admit(np.zeros(len(self.stages)), np.zeros(len(self.stages)), 0.0, 0.0)
        self.clock(0.0)
        if len(self.sizes) > 1:
            self._formed([Request(next(iter(self.row)), np.inf)] * 2, 0.0)

    @property
    def outstanding(self) -> int:
        """Requests that the group is not done with."""
        held = (batch for stage in self.stages for batch in (*stage.waiting, *stage.inside))
        return len(self.queue) + sum(batch.size for batch in held)

    def longest_s(self) -> float:
        """Return what the slowest model takes from end to end, as learnt."""
        return max(float(self.speeds.pace(model).slow.sum()) for model in self.row)

    def admit(self, model: int, now: float, deadline: float) -> Request | None:
        """Take a request on if its answer is predicted in time; None where it is refused."""
        clock = self.clock(now)
        pace, latest = self.speeds.pace(model), deadline - self.margin_s
        if admit(clock.copy(), pace.slow, now, latest) >= 0:
            book(clock, self._shares()[self.row[model]], now)
            return self._taken(Request(model, deadline))
        given = self.speeds.given[model, 1]
        silent = max(TRY_S, TRY_SHARE * float(pace.slow.sum()))
        worth = self.speeds.silent_s(model, now) >= silent and now + given.sum() <= latest
        if worth and not self.outstanding:
            return self._taken(Request(model, deadline, trial=True))
        return None

    def clock(self, now: float) -> Floats:
        """Return when each stage is predicted to get free of all that was taken on."""
        if self._clock is None:
            self._clock = self._stages_clock(now)
            rows = [self.row[request.model] for request in self.queue]
            book_all(self._clock, self._shares(), np.array(rows, np.int64), now)
        return self._clock

    def _stages_clock(self, now: float) -> Floats:
        """Return when each stage is predicted to get free of what the stages hold."""
        clock = np.full(len(self.stages), -np.inf)
        for number in reversed(range(len(self.stages))):
            stage = self.stages[number]
            for batch in stage.inside:
                if not batch.dropped:
                    usual = self._usual(batch)[number:]
                    begun = max(batch.handed_at, stage.free_at, now - usual[0])
                    book(clock[number:], usual, begun)
            for batch in stage.waiting:
                book(clock[number:], self._usual(batch)[number:], now)
        return clock

    def _usual(self, batch: Batch) -> Floats:
        return self.speeds.pace(batch.model, batch.size).usual

    def _shares(self) -> Floats:
        """Return the seconds that a request in the line is taken to cost: (model, stage)."""
        if self._share is None:
            self._share = shares(self._latency("usual"), self.sizes)
        return self._share

    def _latency(self, pace: str) -> Floats:
        """Return all paces: (model, size, stage), infinite for sizes not given."""
        found = np.full((len(self.row), len(self.sizes), len(self.stages)), np.inf)
        for model, row in self.row.items():
            for b, size in enumerate(self.sizes.tolist()):
                if (model, size) in self.speeds.given:
                    found[row, b] = getattr(self.speeds.pace(model, size), pace)
        return found

    def take(self, number: int, now: float, dropped: list[Request]) -> Batch | None:
        """Return what a stage is handed now; None where it has enough, or nothing is there.

        Whoever is dropped before it is added to `dropped`. On the first stage nothing of them is
        left; on a later one the batch is returned all the same, with `dropped` set, as the stage
        must take its activations from the one before.
        """
        stage = self.stages[number]
        if not self._has_room(number):
            return None
        if number == 0:
            batch = self._next_batch(now, dropped)
        else:
            batch = stage.waiting.popleft() if stage.waiting else None
        if batch is None:
            return None
        self._clock = None
        if number and self._hopeless(batch, number, now):
            batch.dropped = True
            dropped += batch.requests
        batch.handed_at = now
        stage.inside.append(batch)
        return batch

    def _next_batch(self, now: float, dropped: list[Request]) -> Batch | None:
        """Form a batch of the line; None while what is there may still get company."""
        self._drop_late(now, dropped)
        if not self.queue:
            return None
        if len(self.sizes) == 1 or self.queue[0].trial:
            return Batch([self.queue.popleft()])
        taken = self._formed([*self.queue], now)
        if self.stages[0].inside and len(taken) < self._largest(taken[0].model):
            return None
        gone = {*taken}
        self.queue = deque(request for request in self.queue if request not in gone)
        return Batch(taken)

    def _drop_late(self, now: float, dropped: list[Request]) -> None:
        """Drop who would be late even alone, with nothing but the first stage's work in front."""
        start, alone = self._start(0, now), dict[tuple[int, bool], float]()
        late = set[Request]()
        for request in self.queue:
            key = (request.model, request.trial)
            if key not in alone:
                alone[key] = start + float(self._left(request.model, 1, request.trial).sum())
            if alone[key] > request.deadline:
                late.add(request)
                dropped.append(request)
        if late:
            self.queue = deque(request for request in self.queue if request not in late)
            self._clock = None

    def _largest(self, model: int) -> int:
        return max(size for size in self.sizes.tolist() if (model, size) in self.speeds.given)

    def _formed(self, queue: list[Request], now: float) -> list[Request]:
        """Return the next batch, of the first one's model."""
        row = self.row[queue[0].model]
        rows = np.array([self.row[request.model] for request in queue], np.int64)
        due = np.array([request.deadline for request in queue]) - self.margin_s
        tail = np.cumsum(np.bincount(rows, minlength=len(self.row))).astype(np.int64)
        order, since = np.argsort(rows, kind="stable").astype(np.int64), np.arange(float(len(rows)))
        head, hosted = np.append(0, tail[:-1]).astype(np.int64), np.ones(len(self.row), np.bool_)
        lines = Lines(order, head, tail, hosted, since, due)
        clock = self._stages_clock(now)
        pipe = Pipe(self.sizes, clock, self._latency("slow"), 0.0)
        b = form(lines, pipe, row, max(now, float(clock[0])))
        return [queue[i] for i in order[head[row] : head[row] + self.sizes[b]]]

    def done(self, number: int, batch: Batch, now: float) -> None:
        """Move on what a stage has finished, the first that it was handed; learn from it."""
        stage = self.stages[number]
        first = stage.inside.popleft()
        assert first is batch
        took = now - max(batch.handed_at, stage.free_at)
        stage.free_at, self._clock, self._share = now, None, None
        if batch.dropped:
            return
        if batch.trial and number == 0:
            self.speeds.forget(batch.model)
        self.speeds.learn(batch.model, batch.size, number, took, now)
        if number + 1 < len(self.stages):
            self.stages[number + 1].waiting.append(batch)

    def _taken(self, request: Request) -> Request:
        self.queue.append(request)
        return request

    def _has_room(self, number: int) -> bool:
        if len(self.stages[number].inside) >= AHEAD:
            return False
        last = number + 1 == len(self.stages)
        return last or len(self.stages[number + 1].waiting) < AHEAD

    def _hopeless(self, batch: Batch, number: int, now: float) -> bool:
        """Say whether all of it would be late even with nothing but this stage's work in front."""
        left = self._left(batch.model, batch.size, batch.trial)[number:]
        return self._start(number, now) + float(left.sum()) > batch.deadline

    def _start(self, number: int, now: float) -> float:
        """Return when a stage is predicted to get free of what it was handed, `now` or later."""
        stage, start = self.stages[number], now
        for ahead in stage.inside:
            if not ahead.dropped:
                usual = self._usual(ahead)[number]
                start = max(max(ahead.handed_at, stage.free_at) + usual, now)
        return start

    def _left(self, model: int, size: int, trial: bool) -> Floats:
        """Return the seconds of the stages that work must be given; of a trial the profile's."""
        return self.speeds.given[model, size] if trial else self.speeds.pace(model, size).slow
