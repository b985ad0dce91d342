"""The model that is trained: a decoder's sizes, and how its layers are built.

The defaults are the paper's GPT (Table 1): learned positions, layer norm, biases, one key and value
head per query head. `config` names a `config.json`, its folder or a model of the catalogue, whose
sizes stand in their place (`inputs/family`).
"""

from typing import Literal

import msgspec

from common.errors import InputError

UNSAID = -1
"""Of a size that is not given: the config's, or without one the paper's."""
_PAPERS = {"layers": 32, "hidden": 3072, "heads": 24, "vocabulary": 256000, "tied": False}


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes and structure of a decoder."""

    config: str = ""
    """A config.json, its folder, or a model's name (Llama-3-8B), in place of all but `sequence`."""
    layers: int = UNSAID
    """Transformer layers; -1: the config's, or the paper's 32."""
    hidden: int = UNSAID
    """Width of a token's activation; -1: the config's, or 3072."""
    heads: int = UNSAID
    """Attention heads; -1: the config's, or 24."""
    kv_heads: int = 0
    """Key and value heads, which divide `heads`; 0: as many."""
    head_dim: int = 0
    """Width of a head; 0: hidden / heads."""
    ffn: int = 0
    """Width of the MLP; 0: 4 x hidden."""
    sequence: int = 2048
    """Tokens per sequence."""
    vocabulary: int = UNSAID
    """Token ids, the rows of the input and output matrices; -1: the config's, or 256000."""
    tied: bool | None = None
    """Input and output layer share one matrix."""
    gated: bool = False
    """Three matrices in an MLP (gate, up, down), not two."""
    biases: Literal["all", "qkv", "none"] = "all"
    """Which linear maps of a layer have biases."""
    norm: Literal["layer", "rms"] = "layer"
    """Layer norm, with a shift, or root mean square norm."""
    norms: Literal[2, 4] = 2
    """Norms of a layer: before attention and MLP, or behind them too."""
    qk_norm: bool = False
    """Queries and keys are normed, head by head."""
    positions: Literal["learned", "rope"] = "learned"
    """One vector per position, or rotations of queries and keys."""
    windows: tuple[int, ...] = ()
    """Tokens that a token attends to at most, by layer, 0: all before it; empty: all in all."""
    attention_softcap: float = 0.0
    """Attention scores are capped softly at this; 0: not."""
    logit_softcap: float = 0.0
    """Logits are capped softly at this; 0: not."""
    activation: Literal["gelu", "gelu_tanh", "silu"] = "gelu"
    """The MLP's nonlinearity."""
    norm_eps: float = 1e-5
    """Added to a variance or mean square."""
    norm_offset: bool = False
    """A norm's scale is 1 + its weight."""
    rope_theta: float = 10000.0
    """Base of the rotations' wavelengths."""
    rope_local_theta: float = 0.0
    """The same in layers with a window; 0: as in the others."""
    rope_factor: float = 1.0
    """Positions are divided by this in layers without a window."""
    attention_scale: float = 0.0
    """Factor of the attention scores; 0: 1 / sqrt of a head's width."""
    scaled_embedding: bool = False
    """Embeddings are multiplied by the square root of `hidden`."""

    def __post_init__(self) -> None:
        """Refuse sizes of which no transformer can be made; a config is read later."""
        if self.config:
            return
        for field, usual in _PAPERS.items():
            if getattr(self, field) in (UNSAID, None):
                msgspec.structs.force_setattr(self, field, usual)
        self._check_sizes()
        self._check_parts()

    def _check_sizes(self) -> None:
        for field in ("layers", "hidden", "heads", "sequence", "vocabulary"):
            if getattr(self, field) < 1:
                raise InputError(f"model.{field} is {getattr(self, field)}, expected 1 or more")
        for field in ("ffn", "kv_heads", "head_dim", "attention_softcap", "logit_softcap"):
            if getattr(self, field) < 0:
                raise InputError(f"model.{field} is {getattr(self, field)}, expected 0 or more")

    def _check_parts(self) -> None:
        if not self.head_dim and self.hidden % self.heads:
            raise InputError(
                f"model.heads is {self.heads}, which does not divide model.hidden {self.hidden}"
            )
        if self.heads % self.groups:
            raise InputError(
                f"model.kv_heads is {self.kv_heads}, which does not divide model.heads {self.heads}"
            )
        if self.windows and (len(self.windows) != self.layers or min(self.windows) < 0):
            raise InputError(
                f"model.windows has {len(self.windows)} entries, expected {self.layers} of 0 or"
                " more, one a layer"
            )

    @property
    def wide(self) -> int:
        """Width of the MLP."""
        return self.ffn or 4 * self.hidden

    @property
    def groups(self) -> int:
        """Key and value heads."""
        return self.kv_heads or self.heads

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.head_dim or self.hidden // self.heads

    def window(self, layer: int) -> int:
        """Return how many tokens a layer's tokens attend to at most, the sequence's if all."""
        return min(self.sequence, (self.windows[layer] if self.windows else 0) or self.sequence)


def layer_forward_flops(model: Model, layer: int = 0) -> float:
    """Return FLOP of a layer's forward pass per sequence: s (8h^2 + 4h ffn + 4sh) for a GPT.

    Full attention, as the paper counts (Table 4): with ffn = 4h, s (24h^2 + 4sh). Grouped heads of
    width d: s (2hd (2a + 2g) + 2kh ffn + 4d a w), k matrices in the MLP, w the layer's window.
    """
    s, h, d = model.sequence, model.hidden, model.head
    projections = 4 * h * d * (model.heads + model.groups)
    mlp = (6 if model.gated else 4) * h * model.wide
    return float(s * (projections + mlp + 4 * model.window(layer) * d * model.heads))


def layers_forward_flops(model: Model, layers: range) -> float:
    """Return FLOP of some layers' forward passes per sequence."""
    if not model.windows:
        return len(layers) * layer_forward_flops(model)
    return sum(layer_forward_flops(model, layer) for layer in layers)


def output_flops(model: Model) -> float:
    """Return FLOP of the output layer per sequence, forward and backward: 6shV."""
    return 6.0 * model.sequence * model.hidden * model.vocabulary


def output_in_layers(model: Model) -> float:
    """Return the output layer's work in transformer layers: 6V / (72h + 12s) where ffn = 4h."""
    each = layers_forward_flops(model, range(model.layers)) / model.layers
    return output_flops(model) / (3 * each)


def iteration_flops(model: Model, sequences: int) -> float:
    """Return FLOP of one iteration over that many sequences, forward and backward."""
    layers = 3 * layers_forward_flops(model, range(model.layers))
    return sequences * (layers + output_flops(model))


def layer_parameters(model: Model, tensor: int = 1) -> int:
    """Return the parameters of one layer (a GPT's: 12h^2 + 13h), or of one of `tensor` ranks.

    Norms and the biases behind the sums are held by all of them.
    """
    h, queries, keys = model.hidden, model.heads * model.head, model.groups * model.head
    cut = 2 * h * queries + 2 * h * keys + (3 if model.gated else 2) * h * model.wide
    cut += (queries + 2 * keys) * (model.biases != "none")
    cut += (2 if model.gated else 1) * model.wide * (model.biases == "all")
    whole = 2 * h * (model.biases == "all") + norm_parameters(model, model.norms)
    return cut // tensor + whole + 2 * model.head * model.qk_norm


def norm_parameters(model: Model, norms: int = 1) -> int:
    """Return the parameters of norms of the hidden state."""
    return norms * model.hidden * (2 if model.norm == "layer" else 1)


def padded_vocabulary(vocabulary: int, ranks: int) -> int:
    """Return the vocabulary filled up to a multiple of 2p, as the paper pads (§6.1)."""
    return -(-vocabulary // (2 * ranks)) * 2 * ranks
