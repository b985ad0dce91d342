"""Throughput and latencies as metrics, by the same names for what is simulated and measured."""

import logging

from common.record import Metric
from helix.simulate.metrics import percentiles
from helix.simulate.system import Floats

PERCENTILES = ("p5", "p25", "p50", "p75", "p95")
_log = logging.getLogger("helix")


def latency_metrics(before: str, rate: float, prompt_s: Floats, decode_s: Floats) -> list[Metric]:
    """Return decoded tokens/s and percentiles of latency; a phase that nothing ended has none.

    `before` is put before every name: "" or "simulated.". The latencies are seconds, sorted.
    """
    found = [Metric(name=f"{before}decode.throughput", value=rate, unit="token/s")]
    for phase, seconds in (("prompt", prompt_s), ("decode", decode_s)):
        if not len(seconds):
            _log.warning(
                "no %s%s ended in the time that counts; raise workload.duration_s or ask less of"
                " the machines",
                before.replace(".", " "),
                phase,
            )
            continue
        names, values = (*PERCENTILES, "mean"), (*percentiles(seconds), float(seconds.mean()))
        found += [
            Metric(name=f"{before}{phase}.{name}", value=value, unit="s")
            for name, value in zip(names, values, strict=True)
        ]
    return found
