"""A plan as a value: which machine holds which layers, and how much goes over which link.

This is what placing returns, `plan` writes as JSON, and `simulate` and the service read.
"""

import msgspec

from common.errors import InputError
from helix.inputs.cluster import FIRST, Cluster, place_name
from helix.plan.flow import Flow
from helix.plan.memory import Held
from helix.plan.placement import Placement, by_ends


class Route(msgspec.Struct, frozen=True):
    """A link in use between two places (0 source, 1 sink, then machines) and its flow, tokens/s."""

    tail: int
    head: int
    flow: float
    capacity: float


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Machines that together serve the whole model, numbered anew from place 2 in their order."""

    name: str
    machines: tuple[int, ...]
    """Their indices in the cluster."""
    layers: int
    intervals: tuple[tuple[int, int], ...]
    """Half-open runs of layers by machine; (0, 0): unused."""
    routes: tuple[Route, ...]
    flow: float
    """Tokens per second, prompts and answers together."""
    kv_entries: dict[str, int] = {}
    """KV capacity by machine in tokens times layers, where it is not the profile's."""
    kinds: tuple[str, ...] = ()
    """What the machines are counted as, where it is not their own kind."""

    def part(self, cluster: Cluster) -> Cluster:
        """Return the service's machines and the links between them."""
        part = cluster.part(self.machines)
        if not self.kinds:
            return part
        pairs = zip(part.nodes, self.kinds, strict=True)
        nodes = tuple(msgspec.structs.replace(node, kind=kind) for node, kind in pairs)
        return msgspec.structs.replace(part, nodes=nodes)

    def placement(self, cluster: Cluster) -> Placement:
        """Return the placement on the service's part of the cluster."""
        known = by_ends(cluster.part(self.machines).links)
        missing = [r for r in self.routes if (r.tail, r.head) not in known]
        if missing:
            ends = f"{place_name(missing[0].tail)} to {place_name(missing[0].head)}"
            raise InputError(f"plan: service {self.name} uses link {ends}, which is not there")
        links = tuple(known[route.tail, route.head] for route in self.routes)
        return Placement(layers=self.layers, intervals=self.intervals, links=links)

    def link_flow(self) -> Flow:
        """Return the flow by link, in the placement's order."""
        return Flow(
            value=self.flow,
            links=tuple(route.flow for route in self.routes),
            capacities=tuple(route.capacity for route in self.routes),
        )


class Trace(msgspec.Struct, frozen=True):
    """A better placement: after so many seconds, its value, and the bound known then."""

    seconds: float
    value: float | None
    bound: float | None = None


class Compared(msgspec.Struct, frozen=True):
    """The answer of a method in a portfolio."""

    method: str
    split: str
    """Of its flow; empty where there is one way only."""
    flow: float
    rate: float | None = None
    """Decode throughput, tokens per second; None: not simulated."""
    seconds: float | None = None
    """Mean seconds of a request, where they count."""
    said: str = ""
    """Why there is no answer, or what is wrong with it."""


class Without(msgspec.Struct, frozen=True):
    """A machine, and the flow that the plan's placement has left without it, tokens per second."""

    machine: int
    flow: float


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Services on a cluster, and what is known of how good they are."""

    schema: str = "helix-plan/1"
    experiment: str
    method: str
    objective: str
    services: tuple[Service, ...]
    flow: float
    """Tokens per second over all services: the paper's objective."""
    bound: float
    """No placement on this cluster has more flow (one service; tokens per second)."""
    estimate: float | None
    """Decode throughput under load in closed form, tokens per second; None beyond the profile."""
    served_bound: float | None = None
    """No placement decodes more in the long run, whatever its links and caches (tokens per second,
    for the workload's mean request)."""
    simulated: float | None = None
    """Decode throughput that was simulated, tokens per second: by the portfolio under the
    experiment's own workload, as the verb simulate does; by the search with requests waiting."""
    found_by: str = ""
    """The method of the portfolio whose answer this is."""
    compared: tuple[Compared, ...] = ()
    """What else there was to choose from."""
    ended: str = ""
    """Why the search ended early: time limit, or interrupted."""
    cut: tuple[str, ...] = ()
    """What was stopped before it was done, and how much more it may have found, if that is
    known."""
    machines: tuple[str, ...]
    """Kind of every machine of the cluster."""
    solver: str = ""
    licence: str = ""
    seed: int = 0
    evaluations: int = 0
    simulations: int = 0
    seconds: float = 0.0
    trace: tuple[Trace, ...] = ()
    without: tuple[Without, ...] = ()
    """What each machine in use contributes: the flow that is left when it alone is lost."""
    held: tuple[Held, ...] = ()
    """What each machine in use holds."""
    kv_tokens: int = 0
    """Tokens that the KV caches keep at once, at most."""
    profile: str = ""
    """Where layer times come from: measured, or an analytic profile."""
    notes: tuple[str, ...] = ()
    """What is not counted, or simplified."""
    question: str = ""
    """Identifies the question and seed that this plan answers."""

    @property
    def bounded(self) -> bool:
        """Whether the bound holds for this plan: it is of one service on the whole cluster.

        A service on some of the machines has a throughput model of its own, in which larger batches
        are usual, so that its flow may be above.
        """
        return [len(one.machines) for one in self.services] == [len(self.machines)]

    @property
    def gap(self) -> float:
        """How far the flow is below its bound, as a share of the bound."""
        return 1 - self.flow / self.bound


def service(
    name: str, machines: tuple[int, ...], placement: Placement, flow: Flow,
    kv_entries: dict[str, int] | None = None,
) -> Service:  # fmt: skip
    """Return a service from its parts."""
    return Service(
        name=name,
        machines=machines,
        layers=placement.layers,
        intervals=placement.intervals,
        routes=tuple(
            Route(link.tail, link.head, f, c)
            for link, f, c in zip(placement.links, flow.links, flow.capacities, strict=True)
        ),
        flow=flow.value,
        kv_entries=kv_entries or {},
    )


def check(plan: Plan, where: str = "plan") -> None:
    """Raise `InputError` unless every machine serves once and every layer is held."""
    taken = [machine for service in plan.services for machine in service.machines]
    if not taken or len(set(taken)) != len(taken) or max(taken) >= len(plan.machines):
        raise InputError(f"{where}: a machine stands in two services, or is not in the cluster")
    for one in plan.services:
        at = f"{where}: service {one.name}"
        if len(one.intervals) != len(one.machines):
            raise InputError(f"{at}: expected one run of layers for each machine")
        held = {layer for first, end in one.intervals for layer in range(first, end)}
        if held != set(range(one.layers)):
            missing = sorted(set(range(one.layers)) - held)
            raise InputError(
                f"{at}: no machine holds layer {missing[0] if missing else one.layers}"
            )
        places = range(len(one.machines) + FIRST)
        if not all(route.tail in places and route.head in places for route in one.routes):
            raise InputError(f"{at}: a route leaves the service's machines")
