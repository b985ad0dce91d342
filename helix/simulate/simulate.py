"""`simulate`: a system under a workload, by the compiled simulator."""

import numpy as np

from common.errors import CaseError, InputError
from helix.inputs.cluster import SOURCE
from helix.inputs.requests import azure_lengths
from helix.inputs.workload import Scheduler
from helix.plan.clock import NEVER
from helix.simulate.kernel import run
from helix.simulate.kernel_coordinator import Load, Log
from helix.simulate.kernel_random import random_state
from helix.simulate.kernel_state import (
    BEYOND_PROFILE,
    DECODES,
    EVENTS,
    FAULT,
    FINISHED,
    HOPELESS,
    MAXFLOW,
    MOST_ACTIVE,
    NO_ROUTE,
    NONE,
    PROMPTS,
    RANDOM,
    REJECTED,
    SHORTEST_QUEUE,
    STOPPED,
    SWARM,
    TOO_MANY_QUERIES,
    World,
    make_world,
)
from helix.simulate.metrics import Outcome, by_node
from helix.simulate.switches import Switches
from helix.simulate.system import Ints, System
from helix.simulate.workload import STAGGER_S, Offline, Workload, warm_up_s

SCHEDULERS = {
    "maxflow": MAXFLOW, "swarm": SWARM, "random": RANDOM, "shortest_queue": SHORTEST_QUEUE
}  # fmt: skip
FIRST_SLOTS = 512  # queries at once; doubled until they suffice
HIGH_WATER, EXPECTED_PART = (0.9, 0.85), (0.6, 1.0)  # of KV and of the mean answer: online, offline
NO_EVENTS = np.zeros(0)


def simulate(
    system: System,
    workload: Workload,
    scheduler: Scheduler = "maxflow",
    *,
    switches: Switches | None = None,
    seed: int = 0,
    least_tokens_per_s: float = 0.0,
    check_s: float = 60.0,
    stop: Ints = NEVER,
) -> Outcome:
    """Return how the system serves the workload.

    `least_tokens_per_s` ends the simulation as soon as the decode throughput since the window's
    begin is below it at one of the checks, which are `check_s` of simulated time apart; the
    outcome then says `stopped_early`, and so it does where the flag `stop` was raised meanwhile.

    Raises:
        InputError: a batch is larger than any measured.
        CaseError: no machine takes a query (online).
    """
    check_connected(system, scheduler)
    slots = max(FIRST_SLOTS, workload.initial + 1 if isinstance(workload, Offline) else 0)
    while True:
        world = make_world(system, slots)
        load = make_load(
            system, workload, scheduler, switches or Switches(), seed, least_tokens_per_s, check_s,
            stop,
        )  # fmt: skip
        log = run(world, load)
        if world.counts[FAULT] != TOO_MANY_QUERIES:
            return _outcome(system, world, load, log)
        slots *= 4


def check_connected(system: System, scheduler: Scheduler) -> None:
    """Refuse a system without a way for any query."""
    if not (system.tail == SOURCE).any():
        raise InputError("placement: no link leaves the coordinator, so nothing can be served")
    if scheduler == "maxflow" and not system.flow.any():
        raise InputError("the max-flow scheduler needs a flow above 0; this placement has none")


def make_load(
    system: System,
    workload: Workload,
    scheduler: Scheduler,
    switches: Switches,
    seed: int,
    least_tokens_per_s: float,
    check_s: float,
    stop: Ints = NEVER,
) -> Load:
    """Return the workload in numbers."""
    offline = isinstance(workload, Offline)
    origin = system.origin_s
    begin = origin + warm_up_s(workload)
    end = begin + workload.duration_s
    requests = azure_lengths() if offline else workload.arrivals
    times = NO_EVENTS if offline else np.array([origin + a.time_s for a in workload.arrivals])
    return Load(
        scheduler=SCHEDULERS[scheduler],
        offline=offline,
        doubled=switches.doubled_single_decode,
        receiver_free=switches.receiver_free_while_arriving,
        high_water=HIGH_WATER[offline],
        ratio=EXPECTED_PART[offline],
        feed=workload.feed if offline else 0.0,
        initial=workload.initial if offline else 0,
        stagger_s=STAGGER_S,
        origin=origin,
        begin=begin,
        end=end,
        horizon=end if offline else np.inf,
        check_s=check_s,
        least_tokens_per_s=least_tokens_per_s,
        words=random_state(seed),
        inputs=np.array([request.input for request in requests], np.int64),
        outputs=np.array([request.output for request in requests], np.int64),
        times=times,
        stop=stop,
    )


def _outcome(system: System, world: World, load: Load, log: Log) -> Outcome:
    fault = world.counts[FAULT]
    if fault == NO_ROUTE:
        raise CaseError("a query found no machine with room for it; offer fewer tokens per second")
    if fault == BEYOND_PROFILE:
        raise InputError("a batch is larger than any in the profile; lower the machine's limits")
    prompts, decodes = world.counts[PROMPTS], world.counts[DECODES]
    window_s = load.end - load.begin
    at_work = world.batches["head"] != NONE
    begun = np.minimum(load.horizon, load.end) - np.maximum(world.places["began"], load.begin)
    busy_s = world.places["busy"] + np.where(at_work, np.maximum(begun, 0.0), 0.0)
    return Outcome(
        window_s=window_s,
        prompt_s=np.sort(log.prompt_s[:prompts]),
        decode_s=np.sort(log.decode_s[:decodes]),
        events=int(world.counts[EVENTS]) + _unfinished_events(world, load.horizon),
        rejected=int(world.counts[REJECTED]),
        finished=int(world.counts[FINISHED]),
        most_active=int(world.counts[MOST_ACTIVE]),
        utilisation=tuple(by_node(busy_s / window_s)),
        kv_peak=tuple(map(int, by_node(world.places["kv_most"]))),
        kv_entries=tuple(map(int, by_node(system.kv_entries))),
        stopped_early=bool(fault in (HOPELESS, STOPPED)),
    )


def _unfinished_events(world: World, horizon: float) -> int:
    """Return the correction for transfers and batches that the horizon cuts through."""
    events = 0
    for line in world.lines["head"]:
        while line != NONE:
            slot = world.slots[line]
            events -= 2 * int(slot["sent"] > horizon) + 2 * int(slot["arrives"] > horizon)
            line = slot["following"]
    for place in np.flatnonzero((world.batches["head"] != NONE) & world.places["whole"]):
        node = world.places[place]
        time = node["began"] + node["first_s"]
        while time <= horizon:
            events += 2
            time += node["batch_s"]
    return events
