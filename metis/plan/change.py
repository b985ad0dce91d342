"""What has changed under a plan that runs: which of its nodes are gone, and which came."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from common.errors import InputError
from metis.inputs.cluster import Node
from metis.inputs.model import Model
from metis.plan.plans import PlacedNode, Plan

MAY_DIFFER = ("name", "config", "global_batch", "sequence_length")
"""Fields of the model that weights and states do not depend on."""


class Change(NamedTuple):
    """A plan that runs, and the cluster of now."""

    before: Plan
    machines: tuple[int | None, ...]
    """Of each node of the plan: its number among the machines of now, None where it is gone."""
    came: tuple[int, ...]
    """Machines of now that the plan does not stand on."""

    @property
    def gone(self) -> list[PlacedNode]:
        """The plan's nodes that are gone."""
        pairs = zip(self.before.nodes, self.machines, strict=True)
        return [node for node, machine in pairs if machine is None]


def change(before: Plan, model: Model, machines: Sequence[Node]) -> Change:
    """Return which nodes of a plan are still there: same host, device type and device count.

    Raises:
        InputError: the plan does not name its nodes, or is of another model.
    """
    if not before.nodes:
        raise InputError(
            "--replan: the plan does not say on which nodes it runs; plan once more in mode strict,"
            " or write its nodes (host, device, devices) into the file in rank order"
        )
    for field in Model.__struct_fields__:
        was, now = getattr(before.model, field), getattr(model, field)
        if field not in MAY_DIFFER and was != now:
            raise InputError(
                f"--replan: the plan is for model.{field} {was}, the experiment has {now}; a job"
                " can be planned anew for other nodes, not for another model"
            )
    there = defaultdict[PlacedNode, list[int]](list)
    for number, node in enumerate(machines):
        key = PlacedNode(host=node.host, device=node.device, devices=node.devices)
        there[key].append(number)
    kept = tuple(there[node].pop(0) if there[node] else None for node in before.nodes)
    came = set(range(len(machines))).difference(kept)
    return Change(before, kept, tuple(sorted(came)))
