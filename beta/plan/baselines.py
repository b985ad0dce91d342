"""What AlpaServe is compared with: replication, fixed groups, round robin, one group per model."""

from beta.inputs.profile import SINGLE, Config
from beta.plan.greedy import greedy
from beta.plan.partition import inside_nodes, powers_in
from beta.plan.placement import Group, Placement, Timetable, used_bytes
from beta.plan.problem import Problem, Scored, score
from common.errors import InputError


def selective_replication(problem: Problem) -> Scored:
    """Return replicas on single devices, placed greedily: `sr-greedy`."""
    return greedy(problem, (SINGLE,) * problem.cluster.devices)


def fixed_groups(problem: Problem, size: int) -> Scored:
    """Return pipelines of `size` devices filled greedily: `mp-greedy-SIZE`.

    As many as lie inside nodes; devices that they leave over stay idle.
    """
    cluster = problem.cluster
    if size < 1 or cluster.devices % size:
        raise InputError(
            f"mp-greedy-{size}: groups of {size} do not divide {cluster.devices} devices"
        )
    count, _ = inside_nodes(cluster.devices, size, cluster.devices_per_node)
    if not count:
        raise InputError(
            f"mp-greedy-{size}: groups of {size} are not whole nodes of"
            f" {cluster.devices_per_node} devices"
        )
    return greedy(problem, (Config(1, size),) * count)


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
    cluster, stops = problem.cluster, problem.switches.round_robin_stops
    count, spare = inside_nodes(cluster.devices, 4, cluster.devices_per_node)
    sizes = [4] * count + sorted(size for left in spare for size in powers_in(left))
    held: list[list[int]] = [[] for _ in sizes]
    used, g = [0.0] * len(sizes), 0
    added = True
    while added:
        added = False
        for m, model in enumerate(problem.models):
            for i in range(1 if stops else len(sizes)):
                h = (g + i) % len(sizes)
                total = used[h] + model.profile.memory_bytes(Config(1, sizes[h]))
                if m not in held[h] and total <= cluster.memory_bytes:
                    held[h].append(m)
                    used[h], added, g = total, True, (h + 1) % len(sizes)
                    break
    groups = zip(sizes, held, strict=True)
    return score(problem, Placement(tuple(Group(Config(1, size), tuple(m)) for size, m in groups)))


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
