"""The placements that the paper's artifact ships, as inputs of the experiments that replay it."""

from functools import cache
from importlib import resources

import msgspec

from common.errors import InputError


class Published(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs of layers by machine of a shipped cluster, or of its machines of one kind.

    `keep_links` are the links per machine that its MILP was pruned to, 0: all.
    """

    cluster: str
    kind: str
    intervals: tuple[tuple[int, int], ...]
    partial: bool
    keep_links: int


class _File(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    placements: dict[str, Published]


@cache
def published_placements() -> dict[str, Published]:
    """Return the shipped placements by name, such as `single.llama70b.ilp`."""
    data = resources.files("helix").joinpath("data/placements.json").read_bytes()
    return msgspec.json.decode(data, type=_File).placements


def solutions_for(cluster: str, layers: int) -> list[str]:
    """Return the names of the shipped solutions of a cluster for models of so many layers."""
    found = list[str]()
    for full, one in published_placements().items():
        if one.cluster == cluster and max(end for _, end in one.intervals) == layers:
            found.append(full.removesuffix(f".{one.kind.lower()}") if one.kind else full)
    return list(dict.fromkeys(found))


def published(name: str, cluster: str) -> tuple[Published, ...]:
    """Return the services of a shipped solution: one, or one for each kind of machine."""
    by_solution = dict[str, list[Published]]()
    for full, one in published_placements().items():
        solution = full.removesuffix(f".{one.kind.lower()}") if one.kind else full
        by_solution.setdefault(solution, []).append(one)
    if name not in by_solution:
        raise InputError(f"search.published is {name!r}, expected one of {', '.join(by_solution)}")
    for one in by_solution[name]:
        if one.cluster != cluster:
            raise InputError(
                f"placement {name!r} is for the cluster {one.cluster!r}; set cluster.named to that"
            )
    return tuple(by_solution[name])
