"""Rotary positions: the angle per position of each pair of a head's values, stretched or not.

RoFormer (arXiv 2104.09864, eq. 15); stretched evenly (`linear`), as Llama 3.1 does (`llama3`), or
by YaRN (`yarn`, arXiv 2309.00071, section 3). Words as in config.json.
"""

import math
from typing import Any

import msgspec

from common.errors import InputError

KINDS = ("default", "linear", "llama3", "yarn")
NEEDS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor",),
}


class Rope(msgspec.Struct, frozen=True, kw_only=True):
    """One way to turn heads by position."""

    rope_theta: float = 10_000.0
    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 0.0
    """Of YaRN: what cosines and sines are multiplied by; 0: by its equation 22."""
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    truncate: bool = True
    """Of YaRN: the pairs between which it interpolates are whole numbers."""

    def frequencies(self, head_size: int) -> list[float]:
        """Return the angle per position of each of the head's `head_size / 2` pairs."""
        plain = [self.rope_theta ** (-i / head_size) for i in range(0, head_size, 2)]
        if self.rope_type == "linear":
            return [f / self.factor for f in plain]
        if self.rope_type == "llama3":
            return [self._by_wavelength(f) for f in plain]
        if self.rope_type == "yarn":
            low, high = self._between(head_size)
            shares = [min(1.0, max(0.0, (i - low) / (high - low))) for i in range(len(plain))]
            both = zip(plain, shares, strict=True)
            return [f / self.factor * share + f * (1 - share) for f, share in both]
        return plain

    @property
    def scale(self) -> float:
        """What cosines and sines are multiplied by: YaRN's temperature of the scores."""
        if self.rope_type != "yarn":
            return 1.0
        if self.attention_factor:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._temperature(self.mscale) / self._temperature(self.mscale_all_dim)
        return self._temperature(1.0)

    def _temperature(self, weight: float) -> float:
        return 0.1 * weight * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def _by_wavelength(self, frequency: float) -> float:
        """Return the frequency as Llama 3.1 has it: slow ones divided, fast ones kept."""
        turns = self.original_max_position_embeddings * frequency / (2 * math.pi)
        if turns < self.low_freq_factor:
            return frequency / self.factor
        if turns > self.high_freq_factor:
            return frequency
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        return (1 - kept) * frequency / self.factor + kept * frequency

    def _between(self, head_size: int) -> tuple[float, float]:
        """Return the pairs up to which YaRN keeps frequencies, and from which it divides them."""

        def pair(turns: float) -> float:
            wave = self.original_max_position_embeddings / (turns * 2 * math.pi)
            return head_size * math.log(wave) / (2 * math.log(self.rope_theta))

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_size - 1)
        return (low, high) if low != high else (low, high + 0.001)


def rope_of(words: dict[str, Any], context: int) -> Rope:
    """Return what a config's table of rotary positions says; `context`: tokens of the model.

    Raises:
        InputError: it is of a kind that is not implemented, or lacks what its kind needs.
    """
    kind = words.get("rope_type", "default")
    if kind not in KINDS:
        raise InputError(f"rope_type is {kind!r}, expected one of {', '.join(KINDS)}")
    if words.get("partial_rotary_factor", 1.0) != 1.0:
        raise InputError("partial_rotary_factor is set; only whole heads are turned here")
    if missing := [name for name in NEEDS.get(kind, ()) if words.get(name) is None]:
        raise InputError(f"the rope table of type {kind} has no {' and no '.join(missing)}")
    known = {name: words[name] for name in Rope.__struct_fields__ if words.get(name) is not None}
    if kind == "yarn":
        known.setdefault("original_max_position_embeddings", context)
    try:
        return msgspec.convert(known, Rope)
    except msgspec.ValidationError as error:
        raise InputError(f"the rope table is not valid: {error}") from error
