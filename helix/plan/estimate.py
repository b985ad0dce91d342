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
the simulator's cost; the simulator has the last word (`helix.plan.search`), and what it says
corrects the estimate of the placements that are looked at next (`helix.plan.learning`).
"""

import numpy as np

from helix.plan.bare import bare
from helix.plan.search_flow import FIRST, LEAST, SOURCE
from helix.plan.search_problem import Floats, Ints, Scratch, SearchProblem

FEED = 0.8  # share of the KV cache that is filled before no more requests are sent (section 5.3)
NODE_FULL = 0.85  # share above which a machine takes none
STEPS = 25  # of the bisection


@bare
def requests_in_flight(
    starts: Ints, ends: Ints, kv_tokens: Floats, through: Floats, tokens: float, room: Floats
) -> float:
    """Return how many requests of so many tokens the KV caches hold, layer by layer.

    `room` is memory for one number per layer.
    """
    for layer in range(len(room)):
        room[layer] = 0.0
    most = np.inf
    for i in range(len(starts)):
        held = ends[i] - starts[i]
        for layer in range(starts[i], ends[i]):
            room[layer] += kv_tokens[i, held]
        share = through[i + FIRST] / max(through[SOURCE], LEAST)
        if share > 0:
            most = min(most, NODE_FULL * kv_tokens[i, held] / (tokens * share))
    least = np.inf
    for layer in range(len(room)):
        least = min(least, room[layer])
    return min(most, FEED * least / tokens)


@bare
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


@bare
def decode_rate(
    problem: SearchProblem, starts: Ints, ends: Ints, flow: Floats, through: Floats,
    scratch: Scratch,
) -> float:  # fmt: skip
    """Return decoded tokens/s with as many requests in flight as the KV caches hold."""
    total = through[SOURCE]
    if total <= LEAST:
        return 0.0
    mix, machines, links = problem.mix, scratch.machines, scratch.links
    mean_input, _, mean_output = mix
    machine_count = _machine_rows(problem, starts, ends, through, machines)
    link_count = _link_rows(problem, flow, total, links)
    many = requests_in_flight(
        starts, ends, problem.kv_tokens, through, mean_input + mean_output, scratch.per_layer
    )
    low, high = 0.0, total / mean_output
    for _ in range(STEPS):
        middle = (low + high) / 2
        time = time_in_system(machines, machine_count, links, link_count, mix, many, middle)
        if middle * time < many:
            low = middle
        else:
            high = middle
    return low * mean_output * correction(problem, machine_count, link_count, total, many, scratch)


@bare
def correction(
    problem: SearchProblem, machine_count: int, link_count: int, total: float, many: float,
    scratch: Scratch,
) -> float:  # fmt: skip
    """Write the facts of a flow; return the factor that was learnt for such."""
    machines, facts = len(problem.most), scratch.facts
    hops = 0.0
    for i in range(machine_count):
        hops += scratch.machines[i, 0]
    facts[0] = 1.0
    facts[1] = link_count / machines
    facts[2] = machine_count / machines
    facts[3] = hops / machines
    facts[4] = np.log(total)
    facts[5] = np.log(1 + many)
    power = 0.0
    for i in range(len(facts)):
        power += problem.learnt[i] * facts[i]
    return np.exp(power)


@bare
def _machine_rows(
    problem: SearchProblem, starts: Ints, ends: Ints, through: Floats, rows: Floats
) -> int:
    """Write what `time_in_system` reads of the machines in use; return how many they are."""
    count = 0
    for i in range(len(starts)):
        share, held = through[i + FIRST] / through[SOURCE], ends[i] - starts[i]
        if share > 0:
            rows[count, 0] = share
            rows[count, 1] = held * problem.base[i]
            rows[count, 2] = held * problem.per_decode[i]
            rows[count, 3] = held * problem.per_prompt[i]
            count += 1
    return count


@bare
def _link_rows(problem: SearchProblem, flow: Floats, total: float, rows: Floats) -> int:
    """Write what `time_in_system` reads of the links in use; return how many they are."""
    count = 0
    for tail in range(flow.shape[0]):
        for head in range(flow.shape[0]):
            if flow[tail, head] > LEAST:
                rows[count, 0] = flow[tail, head] / total
                rows[count, 1] = problem.latency[tail, head]
                rows[count, 2] = problem.occupied[tail, head]
                count += 1
    return count
