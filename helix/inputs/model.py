"""The model that is served: its layers and what passes between them."""

import tomllib
from functools import cache
from importlib import resources

import msgspec

from common.errors import InputError


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of equal layers.

    `token_bytes` pass between coordinator and machine for each token, `activation_bytes` more
    between machines. The three tables feed the throughput model (`plan/throughput.py`):
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
    embedding_bytes: float = 0.0
    """Held besides by the machine with the first layer; 0: none, or not known."""
    head_bytes: float = 0.0
    """Held besides by the machine with the last layer; 0: none, or not known."""
    tied: bool = False
    """Embedding and head are one matrix."""
    context: int = 0
    """Tokens of a request, prompt and answer, at most; 0: not known."""
    notes: tuple[str, ...] = ()
    """What is not counted, or simplified."""

    def __post_init__(self) -> None:
        """Refuse sizes that no model has."""
        for field in ("layers", "layer_bytes", "token_bytes", "activation_bytes"):
            if not getattr(self, field) > 0:
                raise InputError(f"model: {field} is {getattr(self, field)}, expected above 0")

    def held_bytes(self, first: int, end: int) -> float:
        """Return the weights of a machine with the layers from first to before end."""
        ends = [self.embedding_bytes] * (first == 0) + [self.head_bytes] * (end == self.layers)
        besides = max(ends) if self.tied and ends else sum(ends)
        return (end - first) * self.layer_bytes + besides

    @property
    def hop_bytes(self) -> int:
        """Bytes for one token from machine to machine."""
        return self.token_bytes + self.activation_bytes


@cache
def known_models() -> dict[str, Model]:
    """Return the shipped models (`helix/data/models.toml`)."""
    text = resources.files("helix").joinpath("data/models.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, Model])
