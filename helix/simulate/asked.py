"""What is asked of each of a plan's services: a mode's requests, or the user's own trace's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from common.errors import InputError
from helix.inputs.cluster import Cluster
from helix.inputs.model import Model
from helix.inputs.profile import Profiles
from helix.inputs.requests import Arrival, generated_arrivals
from helix.inputs.traces import Limits, Trace, read_trace
from helix.inputs.workload import WorkloadSettings
from helix.plan.placement import UNUSED
from helix.plan.plans import Service
from helix.simulate.workload import Offline, Online, Workload


class Asked(NamedTuple):
    """The workloads by the services' names, and what was kept of a trace."""

    workloads: dict[str, Workload]
    trace: Trace | None = None


def longest(
    services: Sequence[Service], cluster: Cluster, model: Model, profiles: Profiles
) -> Limits:
    """Return the longest requests that every machine of the services takes, and the model."""
    prompts, caches = list[int](), list[int]()
    for one in services:
        kinds = one.kinds or tuple(cluster.nodes[machine].kind for machine in one.machines)
        for number, (kind, run) in enumerate(zip(kinds, one.intervals, strict=True)):
            if run != UNUSED:
                held, profile = run[1] - run[0], profiles[kind]
                limits = profile.limits[min(held, profile.max_layers) - 1]
                entries = one.kv_entries.get(str(number), limits.kv_entries)
                prompts.append(limits.prompt_tokens)
                caches.append(entries // held)
    return Limits(model.context, min(prompts, default=0), min(caches, default=0))


def asked_of(
    settings: WorkloadSettings, services: Sequence[Service], limits: Limits, seed: int
) -> Asked:
    """Return what is asked of a plan's services.

    What arrives is the plan's: services without a number of their own get a share each, as their
    flow is (equal ones where a flow is not known). Of a trace, what `limits` and the window allow.
    """
    names = [one.name for one in services]
    if settings.mode == "offline":
        return Asked({name: _offline(settings, name) for name in names})
    shares, length = _shares(services), settings.duration_s
    if settings.trace:
        trace = read_trace(Path(settings.trace)).within(
            limits, settings.trace_from_s, length, settings.rate_scale
        )
        if not trace.arrivals:
            raise InputError(f"{settings.trace}: nothing to play; {trace.told}")
        hands = zip(names, dealt(trace.arrivals, shares), strict=True)
        online = {n: Online(arrivals=hand, duration_s=length) for n, hand in hands}
        return Asked(dict(online), trace)
    shuffled = settings.compat and "shuffled_trace" not in settings.right
    rates = [_of(settings.tokens_per_s, name, "tokens_per_s") for name in names]
    if not isinstance(settings.tokens_per_s, Mapping):
        rates = [rate * share for rate, share in zip(rates, shares, strict=True)]
    return Asked(
        {
            name: Online(
                arrivals=generated_arrivals(rate, length, seed, shuffled=shuffled),
                duration_s=length,
            )
            for name, rate in zip(names, rates, strict=True)
        }
    )


def _offline(settings: WorkloadSettings, name: str) -> Offline:
    return Offline(
        initial=int(_of(settings.initial, name, "initial")),
        warm_up_s=settings.warm_up_s,
        duration_s=settings.duration_s,
    )


def _shares(among: Sequence[Service]) -> list[float]:
    flows = [one.flow for one in among]
    if min(flows) <= 0:
        return [1 / len(flows)] * len(flows)
    return [flow / sum(flows) for flow in flows]


def dealt(arrivals: Sequence[Arrival], shares: Sequence[float]) -> list[list[Arrival]]:
    """Return arrivals by service: each goes to the one that is furthest behind its share."""
    if len(shares) == 1:
        return [list(arrivals)]
    hands = [list[Arrival]() for _ in shares]
    for number, arrival in enumerate(arrivals, 1):
        behind = [share * number - len(hand) for share, hand in zip(shares, hands, strict=True)]
        hands[behind.index(max(behind))].append(arrival)
    return hands


def _of(value: float | Mapping[str, float], name: str, field: str) -> float:
    if not isinstance(value, Mapping):
        return value
    if name not in value:
        raise InputError(
            f"workload.{field} has {', '.join(value)}, but the plan's service is {name!r}; give a"
            " number for it, or one number for all"
        )
    return value[name]


def begun(workload: Workload, seconds: float) -> Workload:
    """Return the first seconds of a workload, without a warm-up."""
    if isinstance(workload, Offline):
        return msgspec.structs.replace(workload, warm_up_s=0.0, duration_s=seconds)
    arrivals = [arrival for arrival in workload.arrivals if arrival.time_s <= seconds]
    return Online(arrivals=arrivals, duration_s=seconds)
