"""What a model to serve is made of: a BERT classifier's sizes, or a folder of Hugging Face's."""

import msgspec

from common.errors import InputError


class Shape(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A BERT classifier with random weights; or, where `folder` is given, what lies there."""

    sequence: int = 128
    """Tokens of a request, at most; profiles are measured with as many."""
    hidden: int = 0
    """Units of a layer's output; the inner layer has four times as many."""
    layers: int = 0
    """Transformer layers."""
    heads: int = 0
    """Attention heads; they divide `hidden`."""
    vocabulary: int = 51_200
    """Token ids."""
    labels: int = 5
    """Classes."""
    folder: str = ""
    """A Hugging Face sequence classifier: config.json and *.safetensors."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no model."""
        if self.sequence < 1:
            raise InputError(f"shapes: sequence is {self.sequence}, expected 1 or more")
        if self.folder:
            return
        sizes = (self.hidden, self.layers, self.heads, self.vocabulary, self.labels)
        if min(sizes) < 1 or self.hidden % self.heads:
            raise InputError(
                "shapes: expected hidden, layers and heads of 1 or more with heads dividing"
                f" hidden, or a folder; got hidden {self.hidden}, layers {self.layers}, heads"
                f" {self.heads}, vocabulary {self.vocabulary}, labels {self.labels}"
            )


def _bert(sequence: int, hidden: int, layers: int, heads: int) -> Shape:
    return Shape(sequence=sequence, hidden=hidden, layers=layers, heads=heads)


SHAPES = {
    "bert-125m": _bert(2048, 768, 12, 12),
    "bert-350m": _bert(2048, 1024, 24, 16),
    "bert-760m": _bert(2048, 1536, 24, 16),
    "bert-1.3b": _bert(2048, 2048, 24, 32),
    "bert-2.6b": _bert(2048, 2560, 32, 32),
    "bert-6.7b": _bert(2048, 4096, 32, 32),
    "bert-15b": _bert(2048, 5120, 48, 40),
    "bert-micro": Shape(sequence=32, hidden=64, layers=4, heads=4, vocabulary=1000),
    "bert-mini": Shape(sequence=128, hidden=256, layers=8, heads=8, vocabulary=8000),
    "bert-small": Shape(sequence=128, hidden=512, layers=8, heads=8, vocabulary=8000),
}
"""The paper's as in the artifact (inner layer 4 x hidden), and three for a laptop's cores."""


def shape_of(kind: str, own: dict[str, Shape]) -> Shape:
    """Return the shape of a model type: one's own `shapes`, then those known here."""
    if kind in own:
        return own[kind]
    if kind not in SHAPES:
        raise InputError(
            f"no shape of {kind} is known; give it under [shapes.{kind}], or take one of"
            f" {', '.join(SHAPES)}"
        )
    return SHAPES[kind]
