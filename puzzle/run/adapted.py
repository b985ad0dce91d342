"""What a run adapts from step to step: running moments, and the weight of the divergence."""

from __future__ import annotations

from math import sqrt

import msgspec

from puzzle.inputs.ppo import Ppo

LEAST_VARIANCE = 1e-8
"""Below it, numbers are taken to be all the same."""
_MOST_ERROR = 0.2
"""Largest relative error of the divergence that the weight answers to (Ziegler et al. 2019)."""


class Moments(msgspec.Struct, frozen=True):
    """Of some numbers: how many, their mean, the sum of squared distances from it."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def variance(self) -> float:
        """Mean of the squared distances (of these numbers, no estimate of a population's)."""
        return self.squares / max(1.0, self.count)

    @property
    def deviation(self) -> float:
        """Root of the variance; 1 where all numbers are the same, so that it can divide."""
        return sqrt(self.variance) if self.variance > LEAST_VARIANCE else 1.0

    def joined(self, other: Moments) -> Moments:
        """Return the moments of both sets of numbers (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * other.count / count
        between = apart**2 * self.count * other.count / count
        return Moments(count, mean, self.squares + other.squares + between)


class Adapted(msgspec.Struct, frozen=True):
    """What a run adapts from step to step, the same on all ranks; checkpoints keep it."""

    kl_weight: float
    scores: Moments = Moments()
    """Of all answers so far."""
    returns: Moments = Moments()
    """Of all learnt tokens so far, in units of the score."""


def adapted_weight(weight: float, divergence: float, answers: int, ppo: Ppo) -> float:
    """Return the divergence's weight of the next step.

    w (1 + e answers / horizon), with e = divergence / target - 1 held to 0.2 either way; the
    divergence is the mean over answers of the sum of l - l_reference, nats (Ziegler et al. 2019,
    section 2.2).
    """
    if not ppo.kl_target:
        return weight
    error = divergence / ppo.kl_target - 1
    held = min(_MOST_ERROR, max(-_MOST_ERROR, error))
    return weight * (1 + held * answers / ppo.kl_horizon)
