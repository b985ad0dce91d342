"""How long a group's stages really take, by model and batch: learnt from what they took lately.

There is no cap and no ratchet: what is slow is believed after one answer, what is fast again too.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Floats

KEPT = 8
"""Latest passes of a stage that count."""

StageSeconds = Mapping[int, Mapping[int, tuple[float, ...]]]
"""Model -> batch size -> seconds of each stage."""


class Pace(NamedTuple):
    """A pass through the stages: seconds of each."""

    usual: Floats
    """The mean: what work in front takes."""
    slow: Floats
    """The second longest of the latest: what work is given that must not be late. One outlier of
    eight says nothing."""


class Speeds:
    """What is known of every (model, batch); until something is learnt, what is `given`.

    Where `learning` is off, what is given stays, as simulators have it.
    """

    def __init__(self, given: StageSeconds, *, learning: bool) -> None:
        self.given = {
            (model, batch): np.array(seconds)
            for model, batches in given.items()
            for batch, seconds in batches.items()
        }
        self.learning = learning
        self._seen = dict[tuple[int, int], list[deque[float]]]()
        self._pace = dict[tuple[int, int], Pace]()
        self._learnt_at = dict[int, float]()

    def pace(self, model: int, batch: int = 1) -> Pace:
        """Return how long a pass takes; an unseen batch size is as slow as the nearest seen one."""
        key = (model, batch)
        if key not in self._pace:
            self._pace[key] = self._made(key)
        return self._pace[key]

    def learn(self, model: int, batch: int, stage: int, seconds: float, now: float) -> None:
        """Take in that a stage took so long, as known at `now`."""
        if not self.learning:
            return
        key = (model, batch)
        stages = len(self.given[key])
        seen = self._seen.setdefault(key, [deque(maxlen=KEPT) for _ in range(stages)])
        seen[stage].append(seconds)
        self._learnt_at[model] = now
        self._pace = {k: pace for k, pace in self._pace.items() if k[0] != model}

    def silent_s(self, model: int, now: float) -> float:
        """Return for how long nothing was learnt of a model; infinite if nothing ever was."""
        return now - self._learnt_at.get(model, -np.inf)

    def forget(self, model: int) -> None:
        """Believe what is given again."""
        for known in (self._seen, self._pace):
            for key in [key for key in known if key[0] == model]:
                del known[key]

    def _made(self, key: tuple[int, int]) -> Pace:
        seen, given = self._seen.get(key, []), self.given[key]
        if any(seen):
            usual = [sum(s) / len(s) if s else g for s, g in zip(seen, given, strict=True)]
            slow = [_second(s) if s else g for s, g in zip(seen, given, strict=True)]
            return Pace(np.array(usual), np.array(slow))
        others = [k for k in self._seen if k[0] == key[0]]
        if not others:
            return Pace(given, given)
        near = min(others, key=lambda other: abs(np.log(other[1] / key[1])))
        known, base = self._made(near), self.given[near]
        return Pace(given * known.usual.sum() / base.sum(), given * known.slow.sum() / base.sum())


def _second(seen: deque[float]) -> float:
    ordered = sorted(seen)
    return ordered[-2] if len(ordered) > 2 else ordered[-1]
