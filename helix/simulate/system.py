"""What is simulated, as flat arrays: a placement on a cluster with limits, times and link rates.

Units: bytes, bytes per second, seconds; KV capacity in tokens times layers. Arrays by place
begin with the coordinator's two faces (`inputs/cluster.py`); arrays by link are in the placement's
order.
"""

import math
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster
from helix.inputs.model import Model
from helix.inputs.profile import Curve, Limits, Profile, Profiles
from helix.plan.flow import Flow
from helix.plan.placement import Placement

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class System(msgspec.Struct, frozen=True, kw_only=True):
    """A served model; `prompt_s` and `decode_s` are by kind and whole batch size."""

    layers: int
    activation_bytes: int
    origin_s: float  # when all weights are loaded and work begins
    first: Ints  # by place: first layer held
    end: Ints
    kind: Ints
    kv_entries: Ints
    prompt_requests: Ints
    prompt_tokens: Ints
    decode_requests: Ints
    context_tokens: Ints
    nic_in: Floats
    nic_out: Floats
    prompt_s: Floats
    decode_s: Floats
    least_decode_s: Floats  # by kind: the time of the smallest measured decode batch
    tail: Ints  # by link
    head: Ints
    bandwidth: Floats
    latency: Floats
    token_bytes: Floats
    flow: Floats  # tokens per second; zeros where no flow was given
    share: Floats  # by link: bytes per second that the flow allots to it


def make_system(
    cluster: Cluster,
    model: Model,
    profiles: Profiles,
    placement: Placement,
    flow: Flow | None,
    kv_entries: Mapping[int, int] | None = None,
) -> System:
    """Return the system; `kv_entries` overrides KV capacities by node index.

    A node may hold more layers than its profile allows if its capacity is given: its batches are
    then limited as with the most layers profiled (the paper's hand-made pipelines).
    """
    given = kv_entries or {}
    kinds = list(dict.fromkeys(node.kind for node in cluster.nodes))
    limits = [
        _limits(profiles[node.kind], placement.held(i + FIRST), i, given)
        for i, node in enumerate(cluster.nodes)
    ]
    links = placement.links
    outer = [link.tail == SOURCE or link.head == SINK for link in links]
    machines = [node.machine for node in cluster.nodes]
    load_s = [
        placement.held(i + FIRST) * model.layer_bytes / machine.disk
        for i, machine in enumerate(machines)
    ]
    prompt_s, decode_s = _tables(profiles, kinds, limits)
    flows = _floats(flow.links if flow else [0.0] * len(links))
    capacities = _floats(flow.capacities if flow else [1.0] * len(links))
    nic_in = _floats([math.inf, cluster.nic_in, *(m.nic_in for m in machines)])
    nic_out = _floats([cluster.nic_out, math.inf, *(m.nic_out for m in machines)])
    tail, head = _ints([link.tail for link in links]), _ints([link.head for link in links])
    bandwidth = _floats([link.bandwidth for link in links])
    return System(
        layers=model.layers,
        activation_bytes=model.activation_bytes,
        origin_s=float(math.ceil(max(load_s)) + 1),
        first=_by_place([start for start, _ in placement.intervals]),
        end=_by_place([end for _, end in placement.intervals]),
        kind=_by_place([kinds.index(node.kind) for node in cluster.nodes]),
        kv_entries=_by_place([limit.kv_entries for limit in limits]),
        prompt_requests=_by_place([limit.prompt_requests for limit in limits]),
        prompt_tokens=_by_place([limit.prompt_tokens for limit in limits]),
        decode_requests=_by_place([limit.decode_requests for limit in limits]),
        context_tokens=_by_place([limit.context_tokens for limit in limits]),
        nic_in=nic_in,
        nic_out=nic_out,
        prompt_s=prompt_s,
        decode_s=decode_s,
        least_decode_s=_floats([profiles[kind].decode.seconds[1] for kind in kinds]),
        tail=tail,
        head=head,
        bandwidth=bandwidth,
        latency=_floats([link.latency for link in links]),
        token_bytes=_floats([model.token_bytes if out else model.hop_bytes for out in outer]),
        flow=flows,
        share=_shares(tail, head, bandwidth, bandwidth * flows / capacities, nic_in, nic_out),
    )


def _limits(profile: Profile, held: int, node: int, kv_entries: Mapping[int, int]) -> Limits:
    if held > profile.max_layers and node not in kv_entries:
        raise InputError(
            f"node {node} holds {held} layers, its profile allows {profile.max_layers};"
            " give its KV capacity to run it all the same"
        )
    limits = profile.limits[min(max(held, 1), profile.max_layers) - 1]
    kv = kv_entries.get(node, limits.kv_entries)
    return msgspec.structs.replace(limits, kv_entries=kv if held else 0)


def _tables(profiles: Profiles, kinds: list[str], limits: list[Limits]) -> tuple[Floats, Floats]:
    """Return layer times for every whole batch size that limits allow, as far as measured."""
    prompts = max(limit.prompt_tokens for limit in limits)
    decodes = max(limit.decode_requests for limit in limits)
    return (
        np.array([_dense(profiles[kind].prompt, prompts) for kind in kinds]),
        np.array([_dense(profiles[kind].decode, decodes) for kind in kinds]),
    )


def _dense(curve: Curve, most: int) -> list[float]:
    known = min(most, curve.tokens[-1])
    return [curve(size) for size in range(known + 1)] + [math.nan] * (most - known)


def _shares(
    tail: Ints, head: Ints, bandwidth: Floats, used: Floats, nic_in: Floats, nic_out: Floats
) -> Floats:
    """Return what the flow allots to each link: cards are divided as the flow uses the links."""
    leaving, entering = np.zeros(len(nic_out)), np.zeros(len(nic_in))
    for link in range(len(tail)):
        leaving[tail[link]] += used[link]
        entering[head[link]] += used[link]
    shares = np.zeros(len(tail))
    for link in np.flatnonzero(used > 0):
        sent = nic_out[tail[link]] * (used[link] / leaving[tail[link]])
        received = nic_in[head[link]] * (used[link] / entering[head[link]])
        shares[link] = math.floor(min(bandwidth[link], sent, received))
    return shares


def _by_place(by_node: list[int]) -> Ints:
    return _ints([0] * FIRST + by_node)


def _ints(values: list[int]) -> Ints:
    return np.array(values, np.int64)


def _floats(values: "list[float] | tuple[float, ...]") -> Floats:
    return np.array(values, np.float64)
