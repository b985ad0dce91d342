"""A plan's services under an experiment's workload."""

from pathlib import Path

import msgspec

from common.errors import InputError
from common.trace import write_trace
from helix.inputs.cluster import Cluster
from helix.inputs.experiment import Experiment
from helix.inputs.model import Model
from helix.inputs.profile import Profiles
from helix.inputs.traces import Trace
from helix.plan.plans import Plan, Service
from helix.simulate.asked import asked_of, begun, longest
from helix.simulate.engine import Engine
from helix.simulate.metrics import Outcome
from helix.simulate.simulate import simulate
from helix.simulate.switches import Switches, compat
from helix.simulate.system import System, make_system
from helix.simulate.trace import trace_events


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What came of each service, by its name."""

    outcomes: dict[str, Outcome]
    trace: Trace | None = None
    """What was kept of the user's own trace."""


def system_of(one: Service, cluster: Cluster, model: Model, profiles: Profiles) -> System:
    """Return a service as the simulator takes it."""
    return make_system(
        one.part(cluster),
        model,
        profiles,
        one.placement(cluster),
        one.link_flow() if one.flow > 0 else None,
        {int(machine): entries for machine, entries in one.kv_entries.items()},
    )


def serve(plan: Plan, experiment: Experiment, seed: int) -> Served:
    """Simulate every service of a plan under the experiment's workload."""
    cluster, model = experiment.cluster.load(), experiment.model.load()
    if tuple(node.kind for node in cluster.nodes) != plan.machines:
        raise InputError(
            f"the plan is for other machines than experiment {experiment.name} has; plan again"
        )
    profiles, settings = experiment.load_profiles(cluster), experiment.workload
    asked = asked_of(
        settings, plan.services, longest(plan.services, cluster, model, profiles), seed
    )
    return Served(
        outcomes={
            one.name: simulate(
                system_of(one, cluster, model, profiles),
                asked.workloads[one.name],
                settings.scheduler,
                switches=compat(settings.right) if settings.compat else Switches(),
                seed=seed,
            )
            for one in plan.services
        },
        trace=asked.trace,
    )


def write_timelines(plan: Plan, experiment: Experiment, seed: int, folder: Path) -> list[Path]:
    """Write what happens in each service's first `workload.timeline_s` as a Perfetto trace."""
    cluster, model = experiment.cluster.load(), experiment.model.load()
    profiles, settings = experiment.load_profiles(cluster), experiment.workload
    paths = list[Path]()
    asked = asked_of(
        settings, plan.services, longest(plan.services, cluster, model, profiles), seed
    )
    for one in plan.services:
        workload = begun(asked.workloads[one.name], settings.timeline_s)
        system = system_of(one, cluster, model, profiles)
        switches = compat(settings.right) if settings.compat else Switches()
        engine = Engine(system, workload, settings.scheduler, switches, seed)
        engine.run()
        paths.append(folder / f"{experiment.name}-{one.name}.json")
        write_trace(paths[-1], trace_events(system, engine.spans, end_s=engine.end))
    return paths
