"""What the search of a placement needs to know, as flat arrays for its kernels.

Places are numbered as in `helix.inputs.cluster`: source 0, sink 1, then the machines. A machine's
index is its place less `FIRST`. All rates are tokens per second, all times seconds.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from helix.inputs.cluster import FIRST, Cluster
from helix.inputs.model import Model
from helix.inputs.profile import Profile, Profiles
from helix.plan.throughput import Throughput

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FACTS = 6
"""Facts of a flow that the estimate is corrected by, the constant 1 included."""


class RequestMix(NamedTuple):
    """Means of the requests to expect; `second_input` is the mean of the squared prompt length."""

    mean_input: float
    second_input: float
    mean_output: float


AZURE_CONVERSATION = RequestMix(763.1, 9.1e5, 232.4)
"""Of the shipped lengths (helix/data/azure_conversation_lengths.csv)."""


class Scratch(NamedTuple):
    """Memory that the kernels write in, so that none of them has to ask for any."""

    over: Floats
    before: Ints
    queue: Ints
    per_layer: Floats
    machines: Floats  # rows as `time_in_system` reads them
    links: Floats
    facts: Floats  # as `correction` writes them


def scratch(machines: int, layers: int) -> Scratch:
    """Return memory for the kernels of one thread."""
    places = machines + FIRST
    return Scratch(
        over=np.empty(places),
        before=np.empty(2 * places, np.int64),
        queue=np.empty(2 * places, np.int64),
        per_layer=np.empty(layers),
        machines=np.empty((machines, 4)),
        links=np.empty((places * places, 3)),
        facts=np.zeros(FACTS),
    )


class SearchProblem(NamedTuple):
    """Machines (first axis) and links (P x P places) as the kernels read them."""

    layers: int
    most: Ints  # layers a machine may hold
    rates: Floats  # [machine, layers held]: tokens/s through the machine, cards included
    kv_tokens: Floats  # [machine, layers held]: tokens of KV cache per layer
    base: Floats  # seconds that a layer takes for however few decodes
    per_decode: Floats  # more seconds for each decode in the batch
    per_prompt: Floats  # more seconds for each prompt token in the batch
    link_rates: Floats  # [tail, head], 0: no link
    latency: Floats  # [tail, head], seconds
    occupied: Floats  # [tail, head], seconds that a token keeps the link busy
    mix: RequestMix
    learnt: Floats  # weights of the facts by which the estimate is corrected; zeros: as it is


def search_problem(
    cluster: Cluster,
    model: Model,
    profiles: Profiles,
    speed: Throughput,
    mix: RequestMix = AZURE_CONVERSATION,
) -> SearchProblem:
    """Return the arrays; raise `InputError` where the machines cannot hold the model."""
    mine = [profiles[node.kind] for node in cluster.nodes]
    most = np.array([min(profile.max_layers, model.layers) for profile in mine], np.int64)
    if most.sum() < model.layers:
        raise InputError(
            f"the machines hold {most.sum()} layers together, but the model has {model.layers};"
            " add machines or serve a smaller model"
        )
    rates = np.zeros((len(mine), most.max() + 1))
    kv_tokens = np.zeros_like(rates)
    for i, node in enumerate(cluster.nodes):
        cards = min(node.machine.nic_in, node.machine.nic_out) / model.hop_bytes
        for k in range(1, most[i] + 1):
            rates[i, k] = min(speed.rate(node.kind, k), cards)
            kv_tokens[i, k] = mine[i].limits[k - 1].kv_entries / k
    lines = np.array([_line(profile) for profile in mine])
    places = len(mine) + FIRST
    link_rates, latency = np.zeros((places, places)), np.zeros((places, places))
    occupied = np.zeros((places, places))
    links = cluster.links
    sizes = np.where(links.outer, model.token_bytes, model.hop_bytes)
    link_rates[links.tails, links.heads] = links.bandwidths / sizes
    latency[links.tails, links.heads] = links.latencies
    occupied[links.tails, links.heads] = sizes / links.bandwidths
    return SearchProblem(
        layers=model.layers,
        most=most,
        rates=rates,
        kv_tokens=kv_tokens,
        base=lines[:, 0].copy(),
        per_decode=lines[:, 1].copy(),
        per_prompt=lines[:, 2].copy(),
        link_rates=link_rates,
        latency=latency,
        occupied=occupied,
        mix=mix,
        learnt=np.zeros(FACTS),
    )


def _line(profile: Profile) -> tuple[float, float, float]:
    """Return the straight line that a layer's time follows: base, per decode, per prompt token."""
    most = min(profile.limits[0].decode_requests, profile.decode.tokens[-1])
    sizes = np.array([size for size in profile.decode.tokens if 0 < size <= most], float)
    seconds = np.array([profile.decode(size) for size in sizes])
    slope, base = np.polyfit(sizes, seconds, 1)
    prompts = np.array([size for size in profile.prompt.tokens if size > 0], float)
    times = np.array([profile.prompt(size) for size in prompts])
    per_prompt = float((prompts * times).sum() / (prompts * prompts).sum())
    return max(float(base), float(seconds[0]) / 2), max(float(slope), 0.0), per_prompt
