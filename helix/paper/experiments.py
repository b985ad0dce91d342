"""The paper's experiments, and the suites `quick` and `full` as lists of cases."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgspec

from common.artifact import Case
from helix.inputs.cluster_source import ClusterSource
from helix.inputs.experiment import Experiment, ModelSource
from helix.inputs.search import Objective, SearchSettings
from helix.paper import played
from helix.paper.replays import (
    CLUSTERS,
    LARGE,
    MODELS,
    MODES,
    PLACINGS,
    REPLAYS,
    SCHEDULINGS,
    SMALL,
    Mode,
    mended,
    placing,
    replay,
    scheduling,
)

FLOW_CHAINS = {"single": 8, "geo": 40, "het": 8}
"""Of slow links few chains for the flow end well (one in ten on three regions): more are tried."""
MILP_S = 120.0


ONLINE: dict[str, Objective] = {"het": "latency-flow"}
"""Clusters whose placement online is not the one for requests that always wait.

On the 42 machines that one serves most, but by longer ways: below its capacity it answers later.
"""


def searched(where: str, model: str, mode: Mode) -> Experiment:
    """Return the same question with a placement of our own, at Helix's load and with its faults."""
    objective = ONLINE.get(where, "simulated") if mode == "online" else "simulated"
    base = replay(where, model, "helix", mode)
    load = REPLAYS[where, model, "helix"]
    rate = sum(load.online.values()) if isinstance(load.online, dict) else load.online
    return msgspec.structs.replace(
        base,
        name=f"{where}-{model}-search-{mode}",
        about=f"our own placement of {MODELS[model]} on {CLUSTERS[where]}, {mode}",
        search=SearchSettings(method="search", objective=objective),
        workload=msgspec.structs.replace(base.workload, initial=20, tokens_per_s=rate),
    )


def flow_search(where: str) -> Experiment:
    """Return the paper's own objective, the flow alone, by our search."""
    base = replay(where, LARGE, "helix", "offline")
    return msgspec.structs.replace(
        base,
        name=f"{where}-llama70b-flow",
        about=f"the largest flow of LLaMA-2 70B on {CLUSTERS[where]}, by our search",
        search=SearchSettings(
            method="search", objective="flow", chains=FLOW_CHAINS[where], evaluations=1_500_000
        ),
    )


def proof(where: str) -> Experiment:
    """Return the flow of the single cluster by the MILP over kinds and positions."""
    base = flow_search(where)
    return msgspec.structs.replace(
        base,
        name=f"{where}-llama70b-proof",
        about="the largest flow of LLaMA-2 70B on single24, proved",
        search=SearchSettings(method="position"),
    )


MILPS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "quality10-milp": ("quality10", SMALL, {}),
    "geo-milp": ("geo24", LARGE, {"keep_links": 12, "start": "swarm"}),
    "geo-milp-unpruned": ("geo24", LARGE, {"start": "swarm"}),
    "geo-milp-cold": ("geo24", LARGE, {"keep_links": 12, "start": "none"}),
    "geo-milp-uncapped": ("geo24", LARGE, {"keep_links": 12, "start": "swarm", "cap": False}),
}
"""Figures 11 and 12: cluster, model and what differs from the paper's MILP as we state it."""


def milp(name: str) -> Experiment:
    """Return a run of the paper's MILP by HiGHS in `MILP_S` seconds."""
    cluster, model, changes = MILPS[name]
    return Experiment(
        name=name,
        about=f"the paper's MILP by HiGHS, {MODELS[model]} on {cluster}, {MILP_S:.0f} s",
        model=ModelSource(name=MODELS[model]),
        cluster=ClusterSource(named=cluster),
        search=SearchSettings(method="milp", time_limit_s=MILP_S, **changes),
    )


def quality() -> Experiment:
    """Return the question of figure 12, the 10 machines, by our search."""
    base = milp("quality10-milp")
    return msgspec.structs.replace(
        base,
        name="quality10-search",
        about="the largest flow of LLaMA 30B on 10 machines, by our search",
        search=SearchSettings(method="search", objective="flow", chains=2, evaluations=200_000),
    )


@cache
def named() -> dict[str, Experiment]:
    """Return the paper's experiments by name."""
    found = list[Experiment]()
    for where, model, system in REPLAYS:
        found += [replay(where, model, system, mode) for mode in MODES]
    for where, model in dict.fromkeys((w, m) for w, m, _ in REPLAYS):
        found += [searched(where, model, mode) for mode in MODES]
    found += [flow_search(where) for where in CLUSTERS]
    found += [proof("single")]
    found += [placing(where, system) for where in ("single", "geo") for system in PLACINGS]
    found += [scheduling(scheduler) for scheduler in SCHEDULINGS]
    found += [one.right for one in mended()]
    found += [milp(name) for name in MILPS] + [quality()]
    found += played.experiments()
    return {experiment.name: experiment for experiment in found}


def _case(verb: str, name: str) -> Case:
    return Case(verb=verb, experiment=named()[name])


def _replays(*clusters: str) -> Iterator[Case]:
    for where, model, system in REPLAYS:
        for mode in MODES if where in clusters else ():
            yield _case("simulate", f"{where}-{model}-{system}-{mode}")


def _searches(*questions: tuple[str, str]) -> Iterator[Case]:
    for where, model in questions:
        yield _case("plan", f"{where}-{model}-search-offline")
        yield _case("simulate", f"{where}-{model}-search-offline")
        yield _case("simulate", f"{where}-{model}-search-online")


def _simulations(experiments: Iterable[Experiment]) -> Iterator[Case]:
    return (Case(verb="simulate", experiment=experiment) for experiment in experiments)


def suites() -> dict[str, list[Case]]:
    """Return the suites: `quick` leaves out what takes long or is not in a claim of its own."""
    quick = [
        *_replays("single", "geo"),
        *_simulations(scheduling(scheduler) for scheduler in SCHEDULINGS),
        *_simulations(placing("geo", system) for system in PLACINGS),
        _case("plan", "single-llama70b-proof"),
        *_searches(("single", LARGE), ("geo", LARGE)),
        _case("run", "played-helix-online"),
    ]
    full = [
        *_replays("single", "geo", "het"),
        *_simulations(scheduling(scheduler) for scheduler in SCHEDULINGS),
        *_simulations(placing(where, system) for where in ("single", "geo") for system in PLACINGS),
        *_simulations(one.right for one in mended()),
        _case("plan", "single-llama70b-proof"),
        *(_case("plan", f"{where}-llama70b-flow") for where in CLUSTERS),
        *_searches(("single", LARGE), ("geo", LARGE), ("het", LARGE)),
        *_searches(("single", SMALL), ("geo", SMALL)),
        *(_case("plan", name) for name in ("quality10-search", *MILPS)),
        *(_case("run", f"played-{system}-{mode}") for system in played.SYSTEMS for mode in MODES),
    ]
    return {"quick": quick, "full": full}
