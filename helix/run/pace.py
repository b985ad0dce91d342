"""Playing a slower machine: a batch ends when the profile says, not when this machine is done."""

import time

import msgspec

from helix.inputs.profile import Curve


class Pace(msgspec.Struct, frozen=True):
    """Seconds of one layer by prompt tokens and by decodes, of the machine that is played."""

    prompt: Curve
    decode: Curve

    def seconds(self, prompt_tokens: int, decodes: int) -> float:
        """Return how long a batch takes; one decode is no faster than the smallest measured."""
        decode_s = _beyond(self.decode, decodes)
        if decodes == 1:
            decode_s = max(decode_s, self.decode.seconds[1])
        return _beyond(self.prompt, prompt_tokens) + decode_s


def _beyond(curve: Curve, size: int) -> float:
    """Return a curve's value, in proportion to the last one for what is larger than measured."""
    most = curve.tokens[-1]
    return curve(size) if size <= most else curve.seconds[-1] * size / most


MOST_BEHIND_S = 0.5


class Clock:
    """Ends batches on time; what Python does between two batches is not added to them.

    A machine that fell behind, because this one was busy with something else, catches up while it
    has work, by at most `MOST_BEHIND_S`: its batches then end as soon as they are done.
    """

    def __init__(self, pace: Pace | None) -> None:
        """Without a pace nothing is held back."""
        self.pace = pace
        self.batches = self.late = 0
        self.late_s = self.busy_s = 0.0
        self._due = 0.0

    def idle(self) -> None:
        """Take note that the machine had nothing to do."""
        self._due = 0.0

    def begin(self) -> None:
        """Take note that a batch begins: now, or when the one before was due."""
        self._begin = self._due or time.monotonic()

    def end(self, prompt_tokens: int, decodes: int) -> float:
        """Wait until the batch is due and return the seconds since it began."""
        now = time.monotonic()
        self.batches += 1
        if self.pace is not None:
            due = self._begin + self.pace.seconds(prompt_tokens, decodes)
            if due >= now:
                time.sleep(due - now)
            else:
                self.late, self.late_s = self.late + 1, self.late_s + now - due
            now = max(due, now - MOST_BEHIND_S)
        self._due = now
        self.busy_s += now - self._begin
        return now - self._begin
