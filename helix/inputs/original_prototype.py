"""The original's `real_sys_config.txt`: who serves which layers at which address.

Blocks apart by blank lines. Machine 0 is the coordinator, with layers -1 to -1; the node at place
p is machine p - 1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from common.errors import InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Link
from helix.inputs.original_ini import Value, read_text

HOST = 0
KEYS = ("machine_id", "ip_address", "in_nodes", "out_nodes", "start_layer", "end_layer")


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of the prototype; it serves layers `start` to `end`, the last not included."""

    machine: int
    address: str
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    start: int
    end: int


def prototype_members(
    cluster: Cluster,
    intervals: Sequence[tuple[int, int]],
    links: Sequence[Link],
    host: str,
    addresses: Mapping[str, Sequence[str]],
) -> tuple[Member, ...]:
    """Return the coordinator and the machines in use.

    Machines take the addresses of their kind in order; an unused one keeps its address and is
    left out. Raises InputError if a kind has too few.
    """
    waiting = {kind: list(own) for kind, own in addresses.items()}
    members = [_member(HOST, host, links, (-1, -1))]
    for index, node in enumerate(cluster.nodes):
        if not waiting.get(node.kind):
            raise InputError(
                f"addresses: {len(addresses.get(node.kind, ()))} for {node.kind}, "
                f"expected {cluster.kind_counts()[node.kind]}"
            )
        address, (start, end) = waiting[node.kind].pop(0), intervals[index]
        if end > start:
            members.append(_member(_machine(index + FIRST), address, links, (start, end)))
    return tuple(members)


def _machine(place: int) -> int:
    return HOST if place in (SOURCE, SINK) else place - 1


def _member(machine: int, address: str, links: Sequence[Link], run: tuple[int, int]) -> Member:
    return Member(
        machine=machine,
        address=address,
        sources=tuple(_machine(k.tail) for k in links if _machine(k.head) == machine),
        targets=tuple(_machine(k.head) for k in links if _machine(k.tail) == machine),
        start=run[0],
        end=run[1],
    )


def write_prototype(members: Sequence[Member]) -> str:
    """Return the text of a `real_sys_config.txt`."""
    return "\n".join(
        f"machine_id: {m.machine}\n"
        f"ip_address: {m.address}\n"
        f"in_nodes: {' '.join(map(str, m.sources))}\n"
        f"out_nodes: {' '.join(map(str, m.targets))}\n"
        f"start_layer: {m.start}\n"
        f"end_layer: {m.end}\n"
        for m in members
    )


def read_prototype(path: Path) -> tuple[Member, ...]:
    """Return the machines of a `real_sys_config.txt`.

    Raises InputError for blocks that lack a key, machines given twice and links that only one of
    their two ends knows.
    """
    members = tuple(_read_member(path, block) for block in _blocks(path))
    known = {member.machine: member for member in members}
    if len(known) != len(members) or HOST not in known:
        raise InputError(f"{path}: every machine_id is given once, and {HOST} is the coordinator")
    into = {(tail, m.machine) for m in members for tail in m.sources}
    out = {(m.machine, head) for m in members for head in m.targets}
    for tail, head in sorted(into ^ out):
        raise InputError(f"{path}: the link from machine {tail} to {head} is named at one end only")
    return members


def _blocks(path: Path) -> list[dict[str, Value]]:
    blocks: list[dict[str, Value]] = [{}]
    for number, line in enumerate(read_text(path).splitlines(), 1):
        key, colon, text = (part.strip() for part in line.partition(":"))
        if not key and not colon:
            blocks += [{}] if blocks[-1] else []
        elif key not in KEYS or key in blocks[-1]:
            raise InputError(f"{path}:{number}: {line.strip()!r}, expected one each of {KEYS}")
        else:
            blocks[-1][key] = Value(text, key, f"{path}:{number}")
    return [block for block in blocks if block]


def _read_member(path: Path, block: Mapping[str, Value]) -> Member:
    missing = [key for key in KEYS if key not in block]
    if missing:
        raise InputError(f"{next(iter(block.values())).place}: this block has no {missing[0]}")
    member = Member(
        machine=block["machine_id"].whole(),
        address=block["ip_address"].word(),
        sources=_machines(block["in_nodes"]),
        targets=_machines(block["out_nodes"]),
        start=block["start_layer"].whole(least=-1),
        end=block["end_layer"].whole(least=-1),
    )
    if member.machine != HOST and not 0 <= member.start < member.end:
        raise block["end_layer"].wrong(f"layers 0 or more and above start_layer {member.start}")
    return member


def _machines(value: Value) -> tuple[int, ...]:
    words = value.text.split()
    if not all(word.isascii() and word.isdigit() for word in words):
        raise value.wrong("machine numbers apart by blanks")
    return tuple(map(int, words))
