"""Beam search over replicas on given groups: every addition to the best few is simulated.

The full form of AlpaServe's Algorithm 1; the greedy form finds almost the same with one simulation
per replica instead of one per possible addition.
"""

from beta.inputs.profile import SINGLE, Config
from beta.plan.placement import Placement, empty, used_bytes
from beta.plan.problem import Problem, Scored, score
from beta.plan.ties import argsort_scores

BEAM = 3


def beam_search(problem: Problem, configs: tuple[Config, ...], beam: int = BEAM) -> Scored:
    """Return the best placement met while additions fit."""
    best = score(problem, empty(configs).normalised())
    kept, seen = [best], set[object]()
    simulations = 1
    while kept:
        layer = list[Scored]()
        for parent in kept:
            for grown in _additions(problem, parent.placement):
                key = _key(problem, grown)
                if key not in seen:
                    seen.add(key)
                    layer.append(score(problem, grown))
        simulations += len(layer)
        order = argsort_scores([s.score for s in layer], problem.switches.legacy_ties)
        kept = [layer[i] for i in order[::-1][:beam]]
        if kept and kept[0].score > best.score:
            best = kept[0]
    return best._replace(simulations=simulations, walked=simulations * len(problem.train))


def replicated_by_beam(problem: Problem) -> Scored:
    """Return replicas on single devices found by beam search: `sr-search`."""
    return beam_search(problem, (SINGLE,) * problem.cluster.devices)


def _additions(problem: Problem, placement: Placement) -> list[Placement]:
    grown = list[Placement]()
    for g, group in enumerate(placement.groups):
        used = used_bytes(group, problem.models)
        for m in range(len(problem.models)):
            if m not in group.models and _fits(problem, m, group.config, used):
                grown.append(placement.with_model(g, m).normalised())
    return grown


def _fits(problem: Problem, model: int, config: Config, used: float) -> bool:
    needed = used + problem.models[model].profile.memory_bytes(config)
    budget = problem.cluster.memory_bytes
    return needed < budget if problem.switches.strict_beam_memory else needed <= budget


def _key(problem: Problem, placement: Placement) -> object:
    if problem.switches.beam_ignores_configs:
        return tuple(group.models for group in placement.groups)
    return placement
