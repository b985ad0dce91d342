"""What a simulation tells: throughput, latencies, and how busy and full the machines were."""

import msgspec
import numpy as np

from helix.inputs.cluster import FIRST
from helix.simulate.system import Floats, Ints

PERCENTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics of one simulation; latencies are seconds, sorted, of iterations in the window."""

    window_s: float
    prompt_s: Floats
    """From a query's arrival to its first answer, the wait at the coordinator included."""
    decode_s: Floats
    """Of each further token."""
    events: int
    """As the original counts them: those that change nothing are counted though not simulated."""
    rejected: int
    finished: int
    most_active: int
    utilisation: tuple[float, ...]
    """By node index: part of the window at work."""
    kv_peak: tuple[int, ...]
    """By node index: most KV entries (tokens times layers) held, counted as batches leave."""
    kv_entries: tuple[int, ...]
    stopped_early: bool = False
    """Given up because the throughput was below what was wanted."""

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens decoded in the window, each second."""
        return len(self.decode_s) / self.window_s

    @property
    def overflowed(self) -> tuple[int, ...]:
        """Indices of nodes whose KV cache would have overflowed; the original stops there."""
        pairs = zip(self.kv_peak, self.kv_entries, strict=True)
        return tuple(i for i, (peak, most) in enumerate(pairs) if peak > most)

    def prompt_percentiles(self) -> list[float]:
        """Return the 5th, 25th, 50th, 75th and 95th percentile of prompt latency."""
        return percentiles(self.prompt_s)

    def decode_percentiles(self) -> list[float]:
        """Return the same of decode latency."""
        return percentiles(self.decode_s)


def percentiles(sorted_s: Floats) -> list[float]:
    """Return the values at int(n * q), as the original takes them; NaN where there are none."""
    if not len(sorted_s):
        return [float("nan")] * len(PERCENTILES)
    return [float(sorted_s[int(len(sorted_s) * q)]) for q in PERCENTILES]


def pooled(parts: list[Outcome]) -> tuple[float, Floats, Floats]:
    """Return the throughput and latencies of independent pipelines together."""
    return (
        sum(part.decode_tokens_per_s for part in parts),
        np.sort(np.concatenate([part.prompt_s for part in parts])),
        np.sort(np.concatenate([part.decode_s for part in parts])),
    )


def by_node(values: Ints | Floats) -> list[float]:
    """Return what belongs to machines of an array by place."""
    return values[FIRST:].tolist()
