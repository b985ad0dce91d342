"""The model that is served: its layers and what passes between them."""

import tomllib
from functools import cache
from importlib import resources

import msgspec

from common.errors import InputError


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of equal layers.

    `token_bytes` pass between coordinator and machine for each token, `activation_bytes` more
    between machines. The last three tables feed the throughput model (`plan/throughput.py`):
    how many layers each kind of machine is assumed to hold, how many where machines are scarce,
    and the layers per second (any unit) its fixed point starts from.
    """

    layers: int
    layer_bytes: float
    token_bytes: int = 2
    activation_bytes: int
    typical_layers: dict[str, int] = {}
    typical_layers_dense: dict[str, int] = {}
    start_speeds: dict[str, float] = {}

    def __post_init__(self) -> None:
        """Refuse sizes that no model has."""
        for field in ("layers", "layer_bytes", "token_bytes", "activation_bytes"):
            if not getattr(self, field) > 0:
                raise InputError(f"model: {field} is {getattr(self, field)}, expected above 0")

    @property
    def hop_bytes(self) -> int:
        """Bytes for one token from machine to machine."""
        return self.token_bytes + self.activation_bytes


@cache
def known_models() -> dict[str, Model]:
    """Return the shipped models (`helix/data/models.toml`)."""
    text = resources.files("helix").joinpath("data/models.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, Model])
