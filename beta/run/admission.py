"""A group's admission control: the simulator's rule, fed with what its answers really took."""

import numpy as np

from beta.simulate.admission import admit

RAISE = 0.03
"""Added to the scale after an answer that was both late and much slower than predicted."""
MUCH = 1.2


class Admission:
    """When each stage of a group is thought to get free; times are seconds of one clock.

    Where `correct`, late answers teach it: the stages are taken to be behind by as much as the
    answer came after its prediction; and where it took more than 1.2 times as long as predicted,
    the scale of all latencies rises by 0.03, up to `limit`. After that nothing is learnt until an
    answer to a request comes that was admitted since. (The original's runtime has the same
    thresholds and steps, but shifts by a share of the queue in front.)
    """

    def __init__(
        self,
        stage_s: dict[int, tuple[float, ...]],
        *,
        margin_s: float,
        correct: bool = True,
        limit: float = 1.08,
    ) -> None:
        self.raw = {model: np.array(seconds) for model, seconds in stage_s.items()}
        stages = max((len(seconds) for seconds in self.raw.values()), default=1)
        self.clock = np.zeros(stages)
        self.margin_s, self.correct, self.limit = margin_s, correct, limit
        self.scale, self.learnt_at = 1.0, -np.inf
        # Compiled now: the first request must not wait for it.
        admit(np.zeros(stages), np.zeros(stages), 0.0, 0.0)

    def predicted_s(self, model: int) -> float:
        """Return the seconds through an idle pipeline."""
        return float(self.raw[model].sum() * self.scale)

    def admit(self, model: int, now: float, deadline: float) -> float | None:
        """Return when the answer is predicted, its stages booked; None where that is too late."""
        latency = self.raw[model] * self.scale
        end = admit(self.clock, latency, now, deadline - self.margin_s)
        return end if end >= 0 else None

    def answered(self, start: float, predicted: float, now: float, deadline: float) -> None:
        """Learn from an answer at `now` to a request admitted at `start`."""
        late = now + self.margin_s > deadline and now > predicted
        if not (self.correct and late and start > self.learnt_at):
            return
        self.clock += now - predicted
        if now - start > MUCH * (predicted - start):
            self.scale = max(self.scale, min(self.scale + RAISE, self.limit))
        self.learnt_at = now
