"""Single chains of machines: the best one of all machines, and one pipeline for each kind."""

from collections.abc import Sequence

import msgspec

from common.errors import CaseError
from helix.inputs.cluster import Cluster
from helix.inputs.model import Model
from helix.inputs.profile import Profiles
from helix.plan.placement import UNUSED

Intervals = tuple[tuple[int, int], ...]


def best_chain(rates: Sequence[Sequence[float]], layers: int) -> tuple[float, Intervals]:
    """Return the best flow of one chain and its runs of layers by machine; links are ignored.

    `rates` are tokens per second for 1, 2, ... layers, by machine; those that add least are left
    out. (0, all unused) if the model does not fit.
    """
    for flow in sorted({rate for own in rates for rate in own}, reverse=True):
        allowed = [[k for k, rate in enumerate(own, 1) if rate >= flow] for own in rates]
        widths = _widths(allowed, layers)
        if widths:
            return flow, _in_a_row(widths)
    return 0.0, (UNUSED,) * len(rates)


def _widths(allowed: Sequence[Sequence[int]], layers: int) -> list[int] | None:
    """Return a width for each machine, 0 or one it is allowed, that add up to all layers."""
    reached: list[dict[int, int]] = [{0: 0}]  # after each machine: layers so far -> last width
    for own in allowed:
        here = dict[int, int]()
        for sofar in reached[-1]:
            for width in (0, *own):
                if sofar + width <= layers and width >= here.get(sofar + width, -1):
                    here[sofar + width] = width
        reached.append(here)
    if layers not in reached[-1]:
        return None
    widths, sofar = list[int](), layers
    for here in reversed(reached[1:]):
        widths.append(here[sofar])
        sofar -= here[sofar]
    return widths[::-1]


def _in_a_row(widths: Sequence[int]) -> Intervals:
    intervals, start = list[tuple[int, int]](), 0
    for width in widths:
        intervals.append((start, start + width) if width else UNUSED)
        start += width
    return tuple(intervals)


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """Machines that serve the whole model in a row, each with its kind and run of layers.

    `kinds` are those of the machines, but for published pipelines that count one kind as another.
    `kv_entries` (tokens times layers) is None where the profile says it.
    """

    name: str
    machines: tuple[int, ...]
    kinds: tuple[str, ...]
    intervals: Intervals
    kv_entries: tuple[int, ...] | None = None

    def part(self, cluster: Cluster) -> Cluster:
        """Return the pipeline's machines and the links between them, renumbered in order."""
        part = cluster.part(self.machines)
        nodes = tuple(
            msgspec.structs.replace(node, kind=kind)
            for node, kind in zip(part.nodes, self.kinds, strict=True)
        )
        return msgspec.structs.replace(part, nodes=nodes)


def separate_pipelines(cluster: Cluster, model: Model, profiles: Profiles) -> tuple[Pipeline, ...]:
    """Return one pipeline of all machines for each kind that can hold the model alone.

    Layers are split evenly, as in the paper's; where they do not divide, the later machines hold
    one more. Kinds that cannot hold the model are left out. Raises CaseError if none can.
    """
    pipelines = list[Pipeline]()
    for kind, count in cluster.kind_counts().items():
        width, rest = divmod(model.layers, count)
        used = count if width else rest
        if width + (rest > 0) > profiles[kind].max_layers:
            continue
        widths = [width + (i >= count - rest) for i in range(count)][count - used :]
        machines = [i for i, node in enumerate(cluster.nodes) if node.kind == kind][:used]
        pipelines.append(
            Pipeline(
                name=kind,
                machines=tuple(machines),
                kinds=(kind,) * used,
                intervals=_in_a_row(widths),
            )
        )
    if not pipelines:
        raise CaseError(f"separate: no kind's machines hold {model.layers} layers; use search")
    return tuple(pipelines)
