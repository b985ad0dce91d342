"""A model to serve: its profile, its latency target, how often and how burstily it is asked for."""

import math
from collections.abc import Sequence

import msgspec

from beta.inputs.profile import Config, Profile, Record
from common.errors import InputError

LARGE_SINGLE_S = 4.6
"""Seconds of bert-103.5b, which no single device holds: the paper's base of its SLO scale."""
MIX = ("bert-6.7b", "moe-5.3b", "bert-2.6b", "moe-2.4b", "bert-1.3b", "moe-1.3b")
"""Model types of the mixed set S3, in the order in which they are registered."""


LARGE_BYTES = 207e9
"""Weights of bert-103.5b in half precision."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model instance. Its index everywhere is its position in the list of models."""

    name: str
    profile: Profile
    slo_s: float = math.inf
    """Seconds from arrival to answer that count as good."""
    rate: float = 0.0
    """Requests/s that arrive."""
    cv: float = 1.0
    """Coefficient of variation of the gaps between arrivals."""

    def __post_init__(self) -> None:
        if not self.slo_s > 0 or not self.rate >= 0:
            raise InputError(f"model {self.name}: slo_s must be positive, rate not negative")


def large_profile(like: Profile) -> Profile:
    """Return a stand-in for bert-103.5b, whose profile was not published.

    4.6 s / pp per stage, times what op devices gain for `like` (bert-6.7b, its largest relative
    with a profile); weights split evenly. Only groups of 16 devices and more.
    """
    records = dict[Config, Record]()
    for op in (1, 2, 4, 8):
        factor = sum(like.records[Config(op, 1)].stage_s[1]) / like.single_s
        for pp in (1, 2, 4, 8, 16):
            if op * pp >= 16:
                stage, weight = LARGE_SINGLE_S * factor / pp, LARGE_BYTES / (op * pp)
                records[Config(op, pp)] = Record(
                    stage_s={1: (stage,) * pp}, weight_bytes=(weight,) * pp
                )
    return Profile(model="bert-103.5b", records=records)


def even_pipelines(profile: Profile, overhead: float) -> Profile:
    """Return a profile whose pipelines (op 1) have equal stages of `overhead` x latency / pp."""
    records = {
        config: msgspec.structs.replace(
            record, stage_s={1: (overhead * profile.single_s / config.pp,) * config.pp}
        )
        if config.op == 1 and config.pp > 1
        else record
        for config, record in profile.records.items()
    }
    return Profile(model=profile.model, records=records)


def slo_of(profile: Profile, scale: float) -> float:
    """Return `scale` times the latency on one device, seconds (AlpaServe §6.1)."""
    large = profile.model == "bert-103.5b"
    return scale * (LARGE_SINGLE_S if large else profile.single_s)


def mixed_types(count: int) -> list[tuple[str, str]]:
    """Return (name, type) of `count` models of the mix: `<type>-<copy>`, types in turn."""
    return [(f"{MIX[i % len(MIX)]}-{i // len(MIX)}", MIX[i % len(MIX)]) for i in range(count)]


def models_of(
    types: Sequence[str],
    profiles: dict[str, Profile],
    *,
    rates: Sequence[float],
    cv: float,
    slo_scale: float,
    names: Sequence[str] | None = None,
) -> tuple[Model, ...]:
    """Return models of the given types; one rate per model, requests/s."""
    if len(rates) != len(types):
        raise InputError(f"{len(types)} models but {len(rates)} rates")
    unknown = sorted({*types} - {*profiles})
    if unknown:
        raise InputError(f"no profile of {', '.join(unknown)}; there are {', '.join(profiles)}")
    return tuple(
        Model(
            name=names[i] if names else f"m{i}",
            profile=profiles[kind],
            slo_s=slo_of(profiles[kind], slo_scale),
            rate=float(rates[i]),
            cv=cv,
        )
        for i, kind in enumerate(types)
    )
