"""Whether this computer has the memory that the machines played on it are to have."""

import os

from common.errors import InputError
from helix.run.decoder_config import DecoderConfig
from helix.run.deploy import WIDTHS, Deployment, Part

GIB = 2**30


def check_room(deployment: Deployment, parts: dict[int, Part]) -> None:
    """Raise InputError where all machines are processes of this computer, which is too small.

    On a cluster and on GPUs each machine has a memory of its own, which the plan knows.
    """
    serve = deployment.experiment.serve
    if serve.address or serve.device != "cpu":
        return
    width, config = WIDTHS[deployment.dtype], deployment.config
    entry = 2 * config.kv_heads * config.head_size * width
    cache = sum(part.limits.kv_entries for part in parts.values()) * entry
    weights = sum(_values(config, part) for part in parts.values()) * width
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if cache + weights > memory:
        raise InputError(
            f"the {len(parts)} machines are all on this computer, which has {memory / GIB:.1f} GiB,"
            f" but the plan gives them {weights / GIB:.1f} GiB of weights and {cache / GIB:.1f} GiB"
            " of KV cache; serve on the machines that were planned for (serve.address), or give"
            " each kind less memory ([profile.kinds.NAME] memory_gb) and plan again"
        )


def _values(config: DecoderConfig, part: Part) -> int:
    """Return the numbers in a machine's matrices; embedding and head are with whom they are."""
    d, wide = config.hidden_size, config.expert_width
    attention = 2 * d * config.head_size * (config.heads + config.kv_heads)
    plain, mixed = 3 * d * config.intermediate_size, 3 * d * wide * config.experts
    held = range(part.first, part.end)
    mlps = sum(mixed if config.has_experts(layer) else plain for layer in held)
    ends = (part.first == 0) + (part.end == config.layers)
    return len(held) * attention + mlps + ends * config.vocabulary * d
