"""The model to be trained, as the planner sees it: counts and widths, no weights."""

import msgspec

from common.errors import InputError


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GPT-like model and its global batch.

    `layers` counts the embedding (layer 0) and the output head (the last layer), as the profiles
    do: a model of L layers has L - 2 transformer blocks.
    """

    name: str = "GPT"
    layers: int
    hidden_size: int = 4096
    sequence_length: int = 1024
    vocabulary: int = 51200
    heads: int = 32
    global_batch: int = 128

    def __post_init__(self) -> None:
        """Refuse a model that no plan can train."""
        if self.layers < 3:
            raise InputError(
                f"model.layers is {self.layers}, expected 3 or more"
                " (the embedding, at least one block, the output head)"
            )
        for field in ("hidden_size", "sequence_length", "vocabulary", "heads", "global_batch"):
            if getattr(self, field) < 1:
                raise InputError(
                    f"model.{field} is {getattr(self, field)}, expected a positive integer"
                )
        if self.hidden_size % self.heads:
            raise InputError(
                f"model.hidden_size {self.hidden_size} is not a multiple of model.heads"
                f" {self.heads}; choose heads that divide it"
            )
