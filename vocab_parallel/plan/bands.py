"""By how much a method's prediction may be wrong, by published rows without own constants."""

import tomllib
from functools import cache
from importlib import resources

import msgspec

from vocab_parallel.inputs.machine import known_machines
from vocab_parallel.plan.plans import Plan

_BEYOND = 2.0
"""How much wider a band is taken where no published row is alike."""


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Worst relative error of time and memory over `rows` published rows."""

    time: float
    memory: float
    rows: int


@cache
def known_bands() -> dict[str, Band]:
    """Return the bands of methods with published rows (`data/bands.toml`)."""
    text = resources.files("vocab_parallel").joinpath("data/bands.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, Band])


def band(plan: Plan) -> Band:
    """Return its method's band, or the widest; twice that where no published row is alike.

    Published are A100s without tensor parallelism and replicas.
    """
    known = known_bands()
    widest = Band(max(b.time for b in known.values()), max(b.memory for b in known.values()), 0)
    found = known.get(plan.method, widest)
    alone = plan.tensor == plan.holdings.replicas == 1
    if alone and _is_published(plan):
        return found
    return Band(_BEYOND * found.time, _BEYOND * found.memory, 0)


def _is_published(plan: Plan) -> bool:
    """Say whether a plan's machine is one of those that published rows were measured on."""
    rates = {machine.layer_tflops for machine in known_machines().values()}
    return plan.machine.layer_tflops in rates
