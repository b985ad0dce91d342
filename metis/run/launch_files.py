"""A plan as files to start it with: one torchrun script per node, and Megatron-LM's arguments.

The rendezvous is torchrun's static one, the only one that keeps node numbers and so the plan's
rank order; nodes may have unlike device counts.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from common.errors import InputError
from common.files import write, write_plan
from metis.plan.plans import Plan
from metis.run.megatron import megatron_file

NodeFacts = tuple[str, str, int]
"""Host, device type, device count."""

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")
_SCRIPT = """\
#!/usr/bin/env bash
# {title}
# Start every node's script with the same plan.json and experiment.toml beside it; node 0 is where
# the others meet.
# Further arguments are handed on, e.g. --out or --set.
set -euo pipefail
here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
exec "${{TORCHRUN:-torchrun}}" \\
    --nnodes={nodes} --node-rank={node} --nproc-per-node={devices} \\
    --rdzv-backend=static --rdzv-endpoint="${{MASTER_ADDR:-{first}}}:${{MASTER_PORT:-29500}}" \\
    -m metis run "$here/experiment.toml" --plan "$here/plan.json" --backend nccl "$@"
"""


def write_launch_files(plan: Plan, nodes: Sequence[NodeFacts], out: Path) -> list[Path]:
    """Write `plan.json`, `node<k>-<host>.sh` per node and `megatron-args.txt` into `out`.

    The scripts also want the experiment, as `experiment.toml`, beside them.

    `nodes` are in rank order. Raises `InputError` unless their devices are the plan's.
    """
    _check(plan, nodes)
    paths = [write_plan(plan, out / "plan.json")]
    for name, content in _scripts(plan, nodes):
        path = out / name
        write(path, content).chmod(0o755)
        paths.append(path)
    return [*paths, write(out / "megatron-args.txt", megatron_file(plan))]


def _scripts(plan: Plan, nodes: Sequence[NodeFacts]) -> Iterator[tuple[str, str]]:
    """Yield each node's script by file name."""
    ends = list(accumulate(count for _, _, count in nodes))
    for number, (host, device, count) in enumerate(nodes):
        ranks = range(ends[number] - count, ends[number])
        held = [
            str(index)
            for index, stage in enumerate(plan.stages)
            if stage.first_rank < ranks.stop and ranks.start < stage.first_rank + stage.devices
        ]
        title = (
            f"Node {number} of {len(nodes)}: {host}, {count} x {device},"
            f" ranks {ranks.start}-{ranks.stop - 1} of {plan.world_size},"
            f" stage {', '.join(held)} of {len(plan.stages)}."
        )
        content = _SCRIPT.format(
            title=title,
            nodes=len(nodes),
            node=number,
            devices=count,
            first=nodes[0][0],
        )
        yield f"node{number}-{re.sub(r'[^A-Za-z0-9.-]', '_', host)}.sh", content


def _check(plan: Plan, nodes: Sequence[NodeFacts]) -> None:
    """Raise `InputError` unless the nodes hold the plan's devices in rank order."""
    for host, _, _ in nodes:
        if not _HOST.fullmatch(host):
            raise InputError(f"cluster.nodes: host {host!r} is not a host's name or address")
    found = [device for _, device, count in nodes for _ in range(count)]
    wanted = [device for stage in plan.stages for device in stage.device_types]
    if len(found) != len(wanted):
        raise InputError(
            f"the nodes have {len(found)} devices, but the plan is for {len(wanted)};"
            " make a plan for this cluster"
        )
    for rank, (node, planned) in enumerate(zip(found, wanted, strict=True)):
        if node != planned:
            raise InputError(
                f"rank {rank} of the nodes is a {node}, but the plan wants a {planned};"
                " give the nodes in the plan's node_sequence"
            )
