"""The model that is trained: a GPT with learned positions and biases, as the paper's (Table 1)."""

import msgspec

from common.errors import InputError


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a GPT; `ffn` 0 stands for 4 x hidden."""

    layers: int = 32
    hidden: int = 3072
    heads: int = 24
    ffn: int = 0
    sequence: int = 2048
    vocabulary: int = 256000
    tied: bool = False
    """Input and output layer share one matrix."""

    def __post_init__(self) -> None:
        """Refuse sizes of which no transformer can be made."""
        for field in ("layers", "hidden", "heads", "sequence", "vocabulary"):
            if getattr(self, field) < 1:
                raise InputError(f"model.{field} is {getattr(self, field)}, expected 1 or more")
        if self.ffn < 0:
            raise InputError(f"model.ffn is {self.ffn}, expected 0 (4 x hidden) or more")
        if self.hidden % self.heads:
            raise InputError(
                f"model.heads is {self.heads}, which does not divide model.hidden {self.hidden}"
            )

    @property
    def wide(self) -> int:
        """Width of the MLP."""
        return self.ffn or 4 * self.hidden


def layer_forward_flops(model: Model) -> float:
    """Return FLOP of one layer's forward pass per sequence: s (8h^2 + 4h ffn + 4sh).

    Full attention, as the paper counts (Table 4): with ffn = 4h, s (24h^2 + 4sh).
    """
    s, h = model.sequence, model.hidden
    return float(s * (8 * h * h + 4 * h * model.wide + 4 * s * h))


def output_flops(model: Model) -> float:
    """Return FLOP of the output layer per sequence, forward and backward: 6shV."""
    return 6.0 * model.sequence * model.hidden * model.vocabulary


def output_in_layers(model: Model) -> float:
    """Return the output layer's work in transformer layers: 6V / (72h + 12s) where ffn = 4h."""
    return output_flops(model) / (3 * layer_forward_flops(model))


def iteration_flops(model: Model, sequences: int) -> float:
    """Return FLOP of one iteration over that many sequences, forward and backward."""
    return sequences * (3 * model.layers * layer_forward_flops(model) + output_flops(model))


def layer_parameters(model: Model, tensor: int = 1) -> int:
    """Return the parameters of one layer: 12h^2 + 13h where ffn = 4h; of one of `tensor` ranks.

    Norms and the biases behind the sums are held by all of them.
    """
    h = model.hidden
    cut = 4 * h * h + 2 * h * model.wide + 3 * h + model.wide
    return cut // tensor + 6 * h


def padded_vocabulary(vocabulary: int, ranks: int) -> int:
    """Return the vocabulary filled up to a multiple of 2p, as the paper pads (§6.1)."""
    return -(-vocabulary // (2 * ranks)) * 2 * ranks
