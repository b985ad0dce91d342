"""The served model as an experiment names it."""

import re
from pathlib import Path
from typing import Any

import msgspec

from common.architecture import Architecture
from common.errors import InputError
from common.model import read
from helix.inputs.layer import Layer, Shape, layer_of
from helix.inputs.model import Model, known_models

STORED = ("dtype", "kv_dtype", "quantization")


class ModelSource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The served model: a shipped one by name, any one by its config, or layers and their shape."""

    name: str = ""
    """Without config and shape: llama1_30b or llama2_70b, shipped with measurements; else any."""
    config: str | dict[str, Any] = ""
    """A Hugging Face config.json, its folder, a name of the catalogue, or a table of such words."""
    dtype: str = ""
    """With config: how weights are stored, in place of what it says: bf16, fp16, fp32, fp8."""
    kv_dtype: str = ""
    """With config: how the KV cache is stored; empty: as the config says, else as the weights."""
    quantization: str | dict[str, Any] = ""
    """With config: how weights are packed, as awq, gptq, fp8, or a table with bits, group_size."""
    layers: int = 0
    """Decoder layers of a model given by its shape."""
    shape: Shape | None = None
    """Sizes of one decoder layer, which its bytes and arithmetic follow from."""

    def __post_init__(self) -> None:
        """Refuse unknown names, models without layers, and several models in one."""
        if self.config and (self.shape is not None or self.layers):
            raise InputError(
                "model.config says how many layers there are and their shape; leave out"
                " model.layers and [model.shape], or model.config"
            )
        stored = [field for field in STORED if getattr(self, field)]
        if stored and not self.config:
            raise InputError(
                f"model.{stored[0]} is {getattr(self, stored[0])!r}, which needs model.config; a"
                " [model.shape] has value_bytes and kv_value_bytes"
            )
        if not self.config and self.shape is None and self.name not in known_models():
            raise InputError(
                f"model.name is {self.name!r}, expected one of {', '.join(known_models())}, or"
                " give model.config, or model.layers and [model.shape]"
            )
        if self.shape is not None:
            if self.layers < 1:
                raise InputError(f"model.layers is {self.layers}, expected 1 or more")
            shape = self.shape.named(self.name, self.layers)
            msgspec.structs.force_setattr(self, "shape", shape)

    @property
    def stem(self) -> str:
        """The name as a part of files' names."""
        named = self.config if isinstance(self.config, str) else ""
        path = Path(named)
        name = self.name or (path.parent.name if path.name == "config.json" else path.name)
        return re.sub(r"[^\w.-]", "-", name) or "model"

    def architecture(self) -> Architecture:
        """Return the model of `config`, stored as the fields beside it say."""
        own = {field: getattr(self, field) for field in STORED if getattr(self, field)}
        return read({"config": self.config, **own})

    def layer(self) -> Layer | None:
        """Return what an analytic profile needs; None of a shipped model, which is measured."""
        if self.config:
            return layer_of(self.architecture())
        return None if self.shape is None else self.shape.layer(self.layers)

    def load(self) -> Model:
        """Return the model."""
        layer = self.layer()
        if layer is None:
            return known_models()[self.name]
        return Model(
            layers=layer.layers,
            layer_bytes=layer.held_bytes,
            activation_bytes=layer.hop_bytes,
            embedding_bytes=layer.embedding_bytes,
            head_bytes=layer.head_bytes,
            tied=layer.tied,
            context=self.architecture().context if self.config else 0,
            notes=layer.notes,
        )
