"""The model that Megatron's arguments describe, with Megatron's defaults.

Learned positions, layer norm and biases unless the arguments say rotations, RMSNorm, none; the MLP
of `--swiglu` is gated, and without `--ffn-hidden-size` two thirds as wide, in multiples of 64.
"""

from typing import Literal

from common.errors import InputError
from vocab_parallel.inputs.arguments import Given
from vocab_parallel.inputs.model import Model


def given_model(given: Given, vocabulary: int) -> Model:
    """Return the model of the arguments; `vocabulary` rows, padded.

    Raises:
        InputError: an argument is missing, or says what no layer here does.
    """
    hidden, heads = given.number("--hidden-size"), given.number("--num-attention-heads")
    if not given.has("--kv-channels") and hidden % heads:
        raise InputError(f"--num-attention-heads {heads} does not divide --hidden-size {hidden}")
    gated, positions = given.has("--swiglu"), _positions(given)
    return Model(
        layers=given.number("--num-layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=_groups(given, heads),
        head_dim=given.number("--kv-channels", hidden // heads),
        ffn=given.number("--ffn-hidden-size", _usual_width(hidden, gated=gated)),
        sequence=_sequence(given, positions),
        vocabulary=vocabulary,
        tied=not given.has("--untie-embeddings-and-output-weights"),
        gated=gated,
        biases=_biases(given),
        norm=_norm(given),
        qk_norm=_qk_norm(given),
        positions=positions,
        activation="silu" if gated else "gelu",
        norm_eps=given.real("--norm-epsilon", 1e-5),
        rope_theta=given.real("--rotary-base", 10000.0),
        rope_factor=given.real("--rotary-seq-len-interpolation-factor", 1.0),
    )


def _usual_width(hidden: int, *, gated: bool) -> int:
    """Return Megatron's width of an MLP where none is given."""
    return int(4 * hidden * 2 / 3 / 64) * 64 if gated else 4 * hidden


def _groups(given: Given, heads: int) -> int:
    """Return key and value heads; --num-query-groups counts with --group-query-attention alone."""
    if not given.has("--group-query-attention"):
        return heads
    groups = given.number("--num-query-groups", 1)
    if heads % groups:
        raise InputError(
            f"--num-query-groups {groups} does not divide --num-attention-heads {heads}"
        )
    return groups


def _positions(given: Given) -> Literal["learned", "rope"]:
    kind = given.text("--position-embedding-type", "learned_absolute")
    if kind not in ("learned_absolute", "rope"):
        raise InputError(
            f"--position-embedding-type {kind} has no counterpart here, only learned_absolute and"
            " rope"
        )
    rope = kind == "rope" or given.has("--use-rotary-position-embeddings")
    if given.real("--rotary-percent", 1.0) != 1:
        raise InputError(
            f"--rotary-percent {given.text('--rotary-percent')} has no counterpart here, only 1.0"
        )
    if given.has("--no-position-embedding") and not rope:
        raise InputError("--no-position-embedding has no counterpart here without rotations")
    return "rope" if rope else "learned"


def _sequence(given: Given, positions: str) -> int:
    """Return the tokens of a sequence; learned positions are held for as many."""
    sequence = given.number("--seq-length")
    most = given.number("--max-position-embeddings", sequence)
    if most < sequence or (positions == "learned" and most != sequence):
        raise InputError(
            f"--max-position-embeddings {most} is not --seq-length {sequence}, as positions are"
            " held here; give the same"
        )
    return sequence


def _biases(given: Given) -> Literal["all", "qkv", "none"]:
    if not given.has("--disable-bias-linear"):
        return "all"
    return "qkv" if given.has("--add-qkv-bias") else "none"


def _norm(given: Given) -> Literal["layer", "rms"]:
    kind = given.text("--normalization", "LayerNorm")
    if kind not in ("LayerNorm", "RMSNorm"):
        raise InputError(
            f"--normalization {kind} has no counterpart here, only LayerNorm and RMSNorm"
        )
    return "rms" if kind == "RMSNorm" else "layer"


def _qk_norm(given: Given) -> bool:
    if given.has("--qk-layernorm") and _norm(given) == "layer":
        raise InputError(
            "--qk-layernorm has no counterpart here with --normalization LayerNorm, only RMSNorm"
        )
    return given.has("--qk-layernorm")
