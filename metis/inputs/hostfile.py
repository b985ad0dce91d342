"""Read and write the original's two cluster files: `hostfile` and `clusterfile.json`.

hostfile: one machine a line, `IP slots=N`. clusterfile.json: IP -> instance_type,
inter_bandwidth and intra_bandwidth (GB/s), memory (GB).
"""

import logging
import re
from pathlib import Path

import msgspec

from common.errors import InputError
from metis.inputs.cluster import Cluster, NodeGroup

log = logging.getLogger("metis")

_LINE = re.compile(r"^(\S+)\s+(?:slots=)?(\d+)$")


class _Entry(msgspec.Struct):
    instance_type: str
    inter_bandwidth: float
    intra_bandwidth: float
    memory: float


def read_cluster(hostfile: Path, clusterfile: Path, *, first_digit_slots: bool = False) -> Cluster:
    """Return the cluster the two files describe.

    `first_digit_slots` keeps the original's reading of one character of the slot count
    (`slots=16` is 1 device). Raises `InputError` naming file, line, found and expected.
    """
    entries = _read_entries(clusterfile)
    groups, lines = list[NodeGroup](), dict[str, int]()
    for number, line in enumerate(_text(hostfile).splitlines(), 1):
        said = line.partition("#")[0].strip()
        if not said:
            continue
        match = _LINE.match(said)
        if not match or not int(match[2]):
            raise InputError(
                f"{hostfile}:{number}: found {line!r}, expected 'IP slots=N', N at least 1"
            )
        host, slots = match[1], match[2][0] if first_digit_slots else match[2]
        if lines.setdefault(host, number) != number and not first_digit_slots:
            log.warning(
                "%s:%d: host %s stands in line %d too and counts as another node of that name;"
                " give each host one line", hostfile, number, host, lines[host],
            )  # fmt: skip
        if host not in entries:
            raise InputError(
                f"{hostfile}:{number}: host {host} has no entry in {clusterfile}"
                f" (it has {', '.join(entries)})"
            )
        try:
            groups.append(_group(host, int(slots), entries[host]))
        except InputError as error:
            raise InputError(f"{clusterfile}: host {host}: {error}") from error
    if not groups:
        raise InputError(f"{hostfile}: no machine in it, expected lines 'IP slots=N'")
    return Cluster(nodes=tuple(groups))


def _group(host: str, devices: int, entry: _Entry) -> NodeGroup:
    return NodeGroup(
        device=entry.instance_type.upper(),
        devices=devices,
        memory_gb=entry.memory,
        intra_bandwidth=entry.intra_bandwidth,
        inter_bandwidth=entry.inter_bandwidth,
        host=host,
    )


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file: {error}") from error


def _read_entries(path: Path) -> dict[str, _Entry]:
    try:
        content = msgspec.json.decode(_text(path).encode(), type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: {error}; expected IP -> instance_type, memory, ...") from error
    entries = {}
    for host, raw in content.items():
        try:
            entries[host] = msgspec.json.decode(raw, type=_Entry)
        except msgspec.DecodeError as error:
            raise InputError(f"{path}: host {host}: {error}") from error
    if not entries:
        raise InputError(f"{path}: no machine in it, expected IP -> instance_type, memory, ...")
    return entries
