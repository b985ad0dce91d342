"""Decode throughput of a placement under load, estimated in closed form: objective latency-flow.

The maximum flow says what the machines could pass if batches were always as large as the
throughput model assumes. What is really served also depends on how long a token is on its way,
because the KV caches bound the requests in flight: by Little's law, requests in flight = requests
per second x time in the system. The estimate solves that for the rate, with

- decodes travel in a convoy: a machine takes all that wait in one batch, so whatever is behind
  catches up with what is ahead, and soon all requests on a route go round together, as simulations
  show. A machine of k layers and a share of the flow holds up the convoy by
  k (base + per_decode x share x requests in flight), longer by the time that prompts take of it;
- a link that sends one request at a time: latency, the convoy's bytes, and the wait of an M/G/1
  queue (Pollaczek-Khinchine), where prompts of squared length E[n^2] do nearly all the blocking;
- routes shared out as the flow is.

It ranks placements far better than the flow, or the flow less a price per hop, at a thousandth of
the simulator's cost; the simulator has the last word (`helix.plan.search`).
"""

import numpy as np

from helix.plan.compiled import compiled
from helix.plan.search_flow import FIRST, LEAST, SOURCE
from helix.plan.search_problem import Floats, Ints

FEED = 0.8  # share of the KV cache that is filled before no more requests are sent (section 5.3)
NODE_FULL = 0.85  # share above which a machine takes none
STEPS = 25  # of the bisection


@compiled
def requests_in_flight(
    starts: Ints, ends: Ints, layers: int, kv_tokens: Floats, through: Floats, tokens: float
) -> float:
    """Return how many requests of so many tokens the KV caches hold, layer by layer."""
    room = np.zeros(layers)
    most = np.inf
    for i in range(len(starts)):
        held = ends[i] - starts[i]
        for layer in range(starts[i], ends[i]):
            room[layer] += kv_tokens[i, held]
        share = through[i + FIRST] / max(through[SOURCE], LEAST)
        if share > 0:
            most = min(most, NODE_FULL * kv_tokens[i, held] / (tokens * share))
    return min(most, FEED * room.min() / tokens)


@compiled
def time_in_system(
    machines: Floats, machine_count: int, links: Floats, link_count: int,
    mix: tuple[float, float, float], many: float, rate: float,
) -> float:  # fmt: skip
    """Return the seconds that a request takes, `many` in flight at `rate` a second; inf: too many.

    Rows of `machines`: share of the flow, seconds of all its layers however few decodes, more for
    each decode, for each prompt token. Rows of `links`: share, latency, seconds busy by a token.
    """
    mean_input, second_input, mean_output = mix
    time = 0.0
    for i in range(machine_count):
        share, base, decode, prompt = machines[i]
        free = 1 - rate * share * prompt * mean_input
        if free <= 0:
            return np.inf
        lap = (base + decode * share * many) / free
        time += share * (lap * (mean_output + 1) + prompt * mean_input)
    for i in range(link_count):
        share, latency, busy = links[i]
        free = 1 - rate * share * busy * (mean_input + mean_output)
        if free <= 0:
            return np.inf
        wait = rate * share * busy * busy * (second_input + mean_output) / (2 * free)
        once = latency + wait + busy * share * many
        time += share * (once * (mean_output + 1) + busy * mean_input)
    return time


@compiled
def decode_rate(
    starts: Ints, ends: Ints, layers: int, flow: Floats, through: Floats, kv_tokens: Floats,
    base: Floats, per_decode: Floats, per_prompt: Floats, latency: Floats, occupied: Floats,
    mix: tuple[float, float, float],
) -> float:  # fmt: skip
    """Return decoded tokens/s with as many requests in flight as the KV caches hold."""
    total = through[SOURCE]
    if total <= LEAST:
        return 0.0
    mean_input, _, mean_output = mix
    machines, links = np.empty((len(starts), 4)), np.empty((len(starts) ** 2 + 1, 3))
    machine_count, link_count = 0, 0
    for i in range(len(starts)):
        share, held = through[i + FIRST] / total, ends[i] - starts[i]
        if share > 0:
            machines[machine_count, 0] = share
            machines[machine_count, 1] = held * base[i]
            machines[machine_count, 2] = held * per_decode[i]
            machines[machine_count, 3] = held * per_prompt[i]
            machine_count += 1
    for tail in range(flow.shape[0]):
        for head in range(flow.shape[0]):
            if flow[tail, head] > LEAST:
                links[link_count, 0] = flow[tail, head] / total
                links[link_count, 1] = latency[tail, head]
                links[link_count, 2] = occupied[tail, head]
                link_count += 1
    many = requests_in_flight(starts, ends, layers, kv_tokens, through, mean_input + mean_output)
    low, high = 0.0, total / mean_output
    for _ in range(STEPS):
        middle = (low + high) / 2
        time = time_in_system(machines, machine_count, links, link_count, mix, many, middle)
        if middle * time < many:
            low = middle
        else:
            high = middle
    return low * mean_output
