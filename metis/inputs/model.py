"""The model to be trained, as the planner sees it: counts and widths, no weights."""

from typing import Any

import msgspec

from common.architecture import Architecture
from common.errors import InputError
from common.model import read

LEFT_OUT: Any = msgspec.UNSET
"""A size that nobody wrote: the config's, or else that of the GPT below."""

GPT = {"hidden_size": 4096, "vocabulary": 51200, "heads": 32}
"""Sizes of a model without config where they are left out."""

ENDS = 2
"""Embedding and head, which count as layers."""


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model and its global batch: a GPT by its sizes, or what `config` describes.

    `layers` counts the embedding (layer 0) and the output head (the last layer), as the profiles
    do: a model of L layers has L - 2 transformer blocks.
    """

    name: str = "GPT"
    config: str = ""
    """A Hugging Face config.json, its folder, or a name that `python -m common.model` knows; the
    sizes come from it, and those written beside it must agree."""
    layers: int = LEFT_OUT
    """With the embedding (first) and the output head (last): L - 2 transformer blocks."""
    hidden_size: int = LEFT_OUT
    """Width of the residual stream; by default the config's, or 4096."""
    sequence_length: int = 1024
    """Tokens a sample."""
    vocabulary: int = LEFT_OUT
    """Rows of the embedding; by default the config's, or 51200."""
    heads: int = LEFT_OUT
    """Attention heads; a tensor degree has to divide them. By default the config's, or 32."""
    kv_heads: int = LEFT_OUT
    """Heads of keys and values, which a tensor degree has to divide too; by default the config's,
    or as many as heads."""
    global_batch: int = 128
    """Samples an iteration, over all replicas and micro-batches."""

    def __post_init__(self) -> None:
        """Refuse a model that no plan can train."""
        for field in ("sequence_length", "global_batch", *GPT, "kv_heads"):
            value = getattr(self, field)
            if value is not LEFT_OUT and value < 1:
                raise InputError(f"model.{field} is {value}, expected a positive integer")
        if not self.config:
            self._fill({"layers": 0, **GPT})
            self._fill({"kv_heads": self.heads})
        if self.layers is not LEFT_OUT and self.layers < ENDS + 1:
            said = f"is {self.layers}" if self.layers else "is missing"
            raise InputError(
                f"model.layers {said}, expected 3 or more"
                " (the embedding, at least one block, the output head), or a model.config"
            )
        if not self.config:
            self._check_heads()

    def resolved(self) -> "Model":
        """Return the model with all sizes filled in from its config.

        Raises:
            InputError: the config is unknown, cannot be trained here, or contradicts a size.
        """
        if not self.config:
            return self
        architecture = self.architecture()
        sizes = {
            "layers": architecture.layers + ENDS,
            "hidden_size": architecture.hidden,
            "vocabulary": architecture.vocabulary,
            "heads": architecture.heads,
            "kv_heads": architecture.kv_heads,
        }
        if architecture.facts["learned"] and self.sequence_length > architecture.context:
            raise InputError(
                f"model.sequence_length is {self.sequence_length}, but {self.config} has positions"
                f" for {architecture.context} tokens only; choose at most that"
            )
        for field, size in sizes.items():
            written = getattr(self, field)
            if written not in (LEFT_OUT, size):
                raise InputError(
                    f"model.{field} is {written}, but {self.config} makes it {size}; leave it out"
                )
        return msgspec.structs.replace(self, **sizes)

    def architecture(self) -> Architecture:
        """Return all that is known of the model: the config's, or that of a GPT of these sizes."""
        if self.config:
            found = read(self.config)
            if found.quantization or found.facts["encoder"]:
                what = "quantized" if found.quantization else "an encoder without an output head"
                raise InputError(
                    f"model.config {self.config} is {what}, which metis does not train;"
                    " name a decoder in 16 or 32 bits"
                )
            return found
        return read(
            {
                "model_type": "gpt2",
                "n_layer": self.layers - ENDS,
                "n_embd": self.hidden_size,
                "n_head": self.heads,
                "vocab_size": self.vocabulary,
                "n_positions": self.sequence_length,
                "tie_word_embeddings": False,
            }
        )

    def splits_over(self, tp: int) -> bool:
        """Say whether heads, and those of keys and values, can be shared out over `tp` ranks."""
        return self.heads % tp == 0 and self.kv_heads % tp == 0

    def _fill(self, sizes: dict[str, int]) -> None:
        for field, size in sizes.items():
            if getattr(self, field) is LEFT_OUT:
                msgspec.structs.force_setattr(self, field, size)

    def _check_heads(self) -> None:
        if self.hidden_size % self.heads:
            raise InputError(
                f"model.hidden_size {self.hidden_size} is not a multiple of model.heads"
                f" {self.heads}; choose heads that divide it"
            )
        if self.kv_heads != self.heads:
            raise InputError(
                f"model.kv_heads is {self.kv_heads}, but a model without config is a GPT, which has"
                f" as many as model.heads, {self.heads}; describe another by model.config"
            )
