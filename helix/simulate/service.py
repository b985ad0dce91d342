"""A plan's services under an experiment's workload."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from common.errors import InputError
from helix.inputs.cluster import Cluster
from helix.inputs.experiment import Experiment, WorkloadSettings
from helix.inputs.model import Model
from helix.inputs.profile import Profiles
from helix.inputs.requests import generated_arrivals, read_arrivals, servable
from helix.plan.plans import Plan, Service
from helix.simulate.engine import Engine
from helix.simulate.metrics import Outcome
from helix.simulate.simulate import simulate
from helix.simulate.switches import Switches, compat
from helix.simulate.system import System, make_system
from helix.simulate.trace import trace_events, write_trace
from helix.simulate.workload import Offline, Online, Workload


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What came of each service, by its name."""

    outcomes: dict[str, Outcome]


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


def workload_of(settings: WorkloadSettings, name: str, seed: int) -> Workload:
    """Return what is asked of the service of that name."""
    if settings.mode == "offline":
        return Offline(
            initial=int(_of(settings.initial, name, "initial")),
            warm_up_s=settings.warm_up_s,
            duration_s=settings.duration_s,
        )
    if settings.trace:
        arrivals = servable(read_arrivals(Path(settings.trace)))
        if not arrivals:
            raise InputError(f"{settings.trace}: no request of 4 to 2048 tokens is in it")
        return Online(arrivals=arrivals, duration_s=settings.duration_s)
    arrivals = generated_arrivals(
        _of(settings.tokens_per_s, name, "tokens_per_s"),
        settings.duration_s,
        seed,
        shuffled=settings.compat and "shuffled_trace" not in settings.right,
    )
    return Online(arrivals=arrivals, duration_s=settings.duration_s)


def _of(value: float | Mapping[str, float], name: str, field: str) -> float:
    if not isinstance(value, Mapping):
        return value
    if name not in value:
        raise InputError(
            f"workload.{field} has {', '.join(value)}, but the plan's service is {name!r}; give a"
            " number for it, or one number for all"
        )
    return value[name]


def serve(plan: Plan, experiment: Experiment, seed: int) -> Served:
    """Simulate every service of a plan under the experiment's workload."""
    cluster, model = experiment.cluster.load(), experiment.model.load()
    if tuple(node.kind for node in cluster.nodes) != plan.machines:
        raise InputError(
            f"the plan is for other machines than experiment {experiment.name} has; plan again"
        )
    profiles, settings = experiment.load_profiles(cluster), experiment.workload
    return Served(
        outcomes={
            one.name: simulate(
                system_of(one, cluster, model, profiles),
                workload_of(settings, one.name, seed),
                settings.scheduler,
                switches=compat(settings.right) if settings.compat else Switches(),
                seed=seed,
            )
            for one in plan.services
        }
    )


def write_timelines(plan: Plan, experiment: Experiment, seed: int, folder: Path) -> list[Path]:
    """Write what happens in each service's first `workload.timeline_s` as a Perfetto trace."""
    cluster, model = experiment.cluster.load(), experiment.model.load()
    profiles, settings = experiment.load_profiles(cluster), experiment.workload
    paths = list[Path]()
    for one in plan.services:
        workload = begun(workload_of(settings, one.name, seed), settings.timeline_s)
        system = system_of(one, cluster, model, profiles)
        switches = compat(settings.right) if settings.compat else Switches()
        engine = Engine(system, workload, settings.scheduler, switches, seed)
        engine.run()
        paths.append(folder / f"{experiment.name}-{one.name}.json")
        write_trace(paths[-1], trace_events(system, engine.spans, end_s=engine.end))
    return paths


def begun(workload: Workload, seconds: float) -> Workload:
    """Return the first seconds of a workload, without a warm-up."""
    if isinstance(workload, Offline):
        return msgspec.structs.replace(workload, warm_up_s=0.0, duration_s=seconds)
    arrivals = [arrival for arrival in workload.arrivals if arrival.time_s <= seconds]
    return Online(arrivals=arrivals, duration_s=seconds)


def offline_rate(
    one: Service, cluster: Cluster, model: Model, profiles: Profiles,
    settings: WorkloadSettings, seed: int,
) -> float:  # fmt: skip
    """Return the decode throughput with queries always waiting: what the search maximises."""
    many = settings.initial if isinstance(settings.initial, int) else sum(settings.initial.values())
    outcome = simulate(
        system_of(one, cluster, model, profiles), Offline(initial=many), "maxflow", seed=seed
    )
    return 0.0 if outcome.overflowed else outcome.decode_tokens_per_s
