"""Machine kinds: memory, network cards and disk. Units: bytes, bytes per second."""

import tomllib
from functools import cache
from importlib import resources

import msgspec

from common.errors import InputError


class MachineKind(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a kind of machine; `vram` in bytes, rates in bytes per second."""

    vram: float
    """GPU memory in bytes; only informative, the profile's limits decide."""
    nic_in: float = 10e9
    """Bytes per second that its network card receives."""
    nic_out: float = 10e9
    """Bytes per second that its network card sends."""
    disk: float = 1e9
    """Bytes per second that its disk reads."""

    def __post_init__(self) -> None:
        """Refuse figures that no machine has."""
        for field in ("vram", "nic_in", "nic_out", "disk"):
            if not getattr(self, field) > 0:
                raise InputError(f"machine: {field} is {getattr(self, field)}, expected above 0")


@cache
def known_kinds() -> dict[str, MachineKind]:
    """Return the shipped table of machine kinds (`helix/data/machines.toml`)."""
    text = resources.files("helix").joinpath("data/machines.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, MachineKind])


def kind_named(name: str) -> MachineKind:
    """Return the shipped kind of that name, or say which there are."""
    if name not in known_kinds():
        raise InputError(
            f"machine kind '{name}' is not known; known are {', '.join(known_kinds())}"
        )
    return known_kinds()[name]
