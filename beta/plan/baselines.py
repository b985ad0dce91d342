"""What AlpaServe is compared with: replication, fixed groups, round robin, one group per model."""

from beta.inputs.profile import SINGLE, Config
from beta.plan.greedy import greedy
from beta.plan.partition import powers_in
from beta.plan.placement import Group, Placement, Timetable, empty, used_bytes
from beta.plan.problem import Problem, Scored, score
from common.errors import InputError


def selective_replication(problem: Problem) -> Scored:
    """Return replicas on single devices, placed greedily: `sr-greedy`."""
    return greedy(problem, (SINGLE,) * problem.cluster.devices)


def fixed_groups(problem: Problem, size: int) -> Scored:
    """Return pipelines of `size` devices filled greedily: `mp-greedy-SIZE`."""
    if size < 1 or problem.cluster.devices % size:
        raise InputError(
            f"mp-greedy-{size}: groups of {size} do not divide {problem.cluster.devices} devices"
        )
    return greedy(problem, (Config(1, size),) * (problem.cluster.devices // size))


def uniform(problem: Problem) -> Scored:
    """Return the models dealt out in turn, each device as many as it holds: `sr-uniform`."""
    models, weight = problem.models, problem.models[0].profile.memory_bytes(SINGLE)
    held = min(int(problem.cluster.memory_bytes / max(weight, 1)), len(models))
    rows = [
        tuple((device + i) % len(models) for i in range(held))
        for device in range(problem.cluster.devices)
    ]
    placement = Placement(tuple(Group(SINGLE, row) for row in rows))
    over = [g for g in placement.groups if used_bytes(g, models) > problem.cluster.memory_bytes]
    if over:
        raise InputError(
            "sr-uniform deals out models of one size; here some device would overflow with"
            f" models {list(over[0].models)}"
        )
    return score(problem, placement)


def round_robin(problem: Problem) -> Scored:
    """Return the models dealt out to pipelines of 4 until nothing fits: `mp-round-robin`."""
    devices, stops = problem.cluster.devices, problem.switches.round_robin_stops
    sizes = [4] * (devices // 4) + powers_in(devices % 4)
    placement, g = empty(tuple(Config(1, size) for size in sizes)), 0
    added = True
    while added:
        added = False
        for m in range(len(problem.models)):
            turns = 1 if stops else len(sizes)
            fits = [
                h
                for h in ((g + i) % len(sizes) for i in range(turns))
                if _takes(problem, placement, h, m)
            ]
            if fits:
                placement, added = placement.with_model(fits[0], m), True
                g = (fits[0] + 1) % len(sizes)
    return score(problem, placement)


def _takes(problem: Problem, placement: Placement, g: int, m: int) -> bool:
    group = placement.groups[g]
    weight = problem.models[m].profile.memory_bytes(group.config)
    used = used_bytes(group, problem.models)
    return m not in group.models and weight + used <= problem.cluster.memory_bytes


def one_group_each(problem: Problem, pp: int, op: int) -> Scored:
    """Return a group of `op * pp` devices for each model: `mp-equal-PP-OP`."""
    config = Config(op, pp)
    groups = problem.cluster.devices // config.devices if config.devices else 0
    if groups != len(problem.models):
        raise InputError(
            f"mp-equal-{pp}-{op} makes {groups} groups of {problem.cluster.devices} devices for"
            f" {len(problem.models)} models; it needs one group per model"
        )
    placement = Placement(tuple(Group(config, (m,)) for m in range(groups)))
    for group in placement.groups:
        if used_bytes(group, problem.models) > problem.cluster.memory_bytes:
            name = problem.models[group.models[0]].name
            raise InputError(f"mp-equal-{pp}-{op}: model {name} is unprofiled so or does not fit")
    return score(problem, placement)


def clockwork(problem: Problem, window_s: float) -> Timetable:
    """Return selective replication solved anew for each window of the training workload.

    Clockwork++ (`sr-replace-SECONDS`) knows each window's requests beforehand and swaps models at
    no cost: better than any real system of its kind.
    """
    windows = problem.train.windows(window_s)
    if not windows:
        raise InputError("sr-replace: the training workload has no request")
    return Timetable(
        tuple(float(window.arrival[0]) for window in windows),
        tuple(selective_replication(problem._replace(train=w)).placement for w in windows),
    )
