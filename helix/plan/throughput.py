"""Typical tokens per second of a machine by the layers it holds: the coefficient of the flow.

Section 4.2 of the paper, in the artifact's exact form. How large a machine's batches are depends
on how fast all others are, so the speeds of all kinds are a fixed point, iterated ten times.
The rounding of small batches is the artifact's too; it makes the values jagged.
"""

from collections.abc import Mapping

import msgspec

from common.errors import InputError
from helix.inputs.model import Model
from helix.inputs.profile import Profile, Profiles

PROMPT_TOKENS, OUTPUT_TOKENS = 750, 240  # the mean request
KV_IN_USE = 0.3  # share of the KV cache assumed filled
ROUNDS = 10
SCARCE = 1.2  # typical layers of all machines below this many models: the dense table


class Typical(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's typical batch and what it passes on: `tokens_per_s` of prompt and decode."""

    prompt_requests: float
    prompt_tokens: int
    decode_tokens: int
    tokens_per_s: float


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """The throughput model of one set of machines; `table[kind][k - 1]` is for k layers."""

    typical_layers: dict[str, int]
    speeds: dict[str, float]  # layers per second of the typical batch
    table: dict[str, tuple[Typical, ...]]

    def rate(self, kind: str, layers: int) -> float:
        """Return tokens per second of a machine that holds so many layers."""
        return self.table[kind][layers - 1].tokens_per_s

    def rates(self, kind: str) -> tuple[float, ...]:
        """Return tokens per second for 1, 2, ... layers."""
        return tuple(typical.tokens_per_s for typical in self.table[kind])


def throughput(model: Model, profiles: Profiles, counts: Mapping[str, int]) -> Throughput:
    """Return the throughput model of `counts` machines of each kind."""
    for kind in counts:
        if kind not in profiles:
            raise InputError(
                f"machine kind '{kind}' has no profile; known are {', '.join(profiles)}"
            )
    counts = {kind: counts[kind] for kind in profiles if kind in counts}  # one order of summing
    layers = _typical_layers(model, profiles, counts)
    speeds = {kind: float(model.start_speeds.get(kind, 1.0)) for kind in counts}
    for _ in range(ROUNDS):
        speeds = {
            kind: _typical(model, profiles, counts, layers, speeds, kind, k).tokens_per_s * k
            for kind, k in layers.items()
        }
    table = {
        kind: tuple(
            _typical(model, profiles, counts, layers, speeds, kind, k)
            for k in range(1, profiles[kind].max_layers + 1)
        )
        for kind in counts
    }
    return Throughput(typical_layers=layers, speeds=speeds, table=table)


def _typical_layers(model: Model, profiles: Profiles, counts: Mapping[str, int]) -> dict[str, int]:
    most = {kind: profiles[kind].max_layers for kind in counts}
    usual = {kind: model.typical_layers.get(kind, max(1, most[kind] * 2 // 3)) for kind in counts}
    if sum(counts[kind] * usual[kind] for kind in counts) >= model.layers * SCARCE:
        return {kind: min(usual[kind], most[kind]) for kind in counts}
    dense = {kind: model.typical_layers_dense.get(kind, most[kind]) for kind in counts}
    return {kind: min(dense[kind], most[kind]) for kind in counts}


def _typical(
    model: Model,
    profiles: Profiles,
    counts: Mapping[str, int],
    typical_layers: Mapping[str, int],
    speeds: Mapping[str, float],
    kind: str,
    layers: int,
) -> Typical:
    held = sum(counts[m] * typical_layers[m] for m in counts)
    mean = sum(counts[m] * typical_layers[m] * (1 / speeds[m]) for m in counts) / held
    batch = layers * (1 / speeds[kind])
    share = batch / ((model.layers - layers) * mean + batch)  # of the time a request is here
    entries = int(profiles[kind].limits[layers - 1].kv_entries / layers * KV_IN_USE)
    present = entries / (PROMPT_TOKENS + OUTPUT_TOKENS) * share
    requests = present / OUTPUT_TOKENS  # prompts in a batch
    prompts, decodes = round(requests * PROMPT_TOKENS), round(present)
    if requests > 1:
        requests, prompts, decodes = 1.0, PROMPT_TOKENS, OUTPUT_TOKENS
    if not prompts and not decodes:  # so little KV cache, or so small a share: one decode at a time
        present, requests = 1.0, 1 / OUTPUT_TOKENS
        prompts, decodes = round(requests * PROMPT_TOKENS), 1
    seconds = _batch_seconds(profiles[kind], requests, prompts, decodes)
    rate = max(1.0, 1 / requests) * (prompts + decodes) / (layers * seconds)
    return Typical(
        prompt_requests=requests,
        prompt_tokens=prompts,
        decode_tokens=decodes,
        tokens_per_s=rate,
    )


def _batch_seconds(profile: Profile, requests: float, prompts: int, decodes: int) -> float:
    """Return the layer time of one prompt and the decode batches that pass in the meantime."""
    if requests >= 1:
        return profile.prompt(prompts) + profile.decode(decodes)
    batches = 1 / requests
    return profile.prompt(int(prompts * batches)) + profile.decode(decodes) * batches
