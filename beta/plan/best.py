"""The best of all methods on the question asked: the default, never worse than any of them.

Every placement that a method finds is played on the training workload by the simulator that the
question names (methods themselves search by the fast one); the most answered in time wins, then
the most different models placed, then the fast simulator's score. Where requests run together,
methods search once more as if each took its part of a batch (`amortised`). Where the bound is
reached nothing can be better, and slow methods are not asked. How much is tried is counted in
simulated requests, not in seconds, so that the answer does not depend on the machine. What is too
much to try is named in the answer.

Not among them are timetables: `sr-replace` swaps models at no cost and knows what comes, and
`mp-replan` needs a service that swaps.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from beta.inputs.profile import SINGLE
from beta.plan import baselines, integer
from beta.plan.amortised import amortised, as_it_is
from beta.plan.apart import search_apart
from beta.plan.beam import BEAM, replicated_by_beam
from beta.plan.bound import upper_bound
from beta.plan.evolve import evolve, evolve_replicas
from beta.plan.exhaustive import every_placement
from beta.plan.improve import local_search
from beta.plan.placement import Placement, Timetable, packed
from beta.plan.pods import MOST_CUT, looks, side_by_side
from beta.plan.problem import Problem, Scored, score
from beta.plan.search import cuts_filled, profiled
from beta.simulate.play import play
from common.errors import InputError

MOST_WALKED = 1.2e9
"""Requests simulated before no further cut is tried: half a minute of a core."""
LARGE = 2e8
"""A question whose cuts take more is not given to the slow methods."""
MOST_BEAM, BEAM_EACH = 2e8, 10_000
"""Requests that a beam search may take, and what each simulation costs it beside its own."""
MOST_PROGRAM = 2000
"""Columns over four of an integer program."""


class Chosen(NamedTuple):
    """The winner."""

    scored: Scored
    by: str
    """The method that found it."""
    good: int
    """Training requests in time, by the question's simulator."""
    proved: bool
    """Whether no placement is better: all were tried, or the bound is reached."""
    left_out: tuple[str, ...]
    """Methods that would have taken too long."""


class _Race:
    """The best so far."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.most = int(upper_bound(problem).attainment * len(problem.train) + 1e-6)
        self.best: Chosen | None = None
        self.simulations = self.walked = 0
        self.left_out = list[str]()
        self.tops = dict[str, Scored]()
        """The best that each method found, by the fast simulator."""
        self._known = dict[Placement, int]()
        self._worth = (-1, 0, 0.0)

    def add(self, name: str, found: Scored) -> None:
        """Enter what a method found."""
        self.simulations += found.simulations
        self.walked += found.walked
        good, placement = self._good(found), found.placement
        worth = (good, len({m for g in placement.groups for m in g.models}), found.score)
        top = self.tops.get(name)
        if top is None or found.score > top.score:
            self.tops[name] = found
        if self.best is None or worth > self._worth:
            self.best, self._worth = Chosen(found, name, good, False, ()), worth

    def over(self) -> bool:
        """Say whether nothing can be better any more."""
        return self.best is not None and self.best.good >= self.most

    def _good(self, found: Scored) -> int:
        problem, playing = self.problem, self.problem.playing
        if (problem.kind, playing.dispatch) == ("fast", "first_free"):
            return found.good
        if found.placement not in self._known:
            timetable = Timetable((0.0,), (found.placement,))
            switches, seed = problem.switches, problem.seed
            outcome = play(problem.train, timetable, problem.models, playing, switches, seed=seed)
            self._known[found.placement] = int(outcome.good.sum())
        return self._known[found.placement]

    def result(self) -> Chosen:
        """Return the winner with all that was spent."""
        assert self.best is not None
        spent = self.best.scored._replace(simulations=self.simulations, walked=self.walked)
        return self.best._replace(
            scored=spent, proved=self.over(), left_out=tuple(dict.fromkeys(self.left_out))
        )


def best(problem: Problem, time_limit_s: float) -> Chosen:
    """Return the best placement of all methods: `best`, the default."""
    race = _Race(problem)
    everything = every_placement(problem)
    if everything is not None:
        for scored in everything:
            race.add("all placements", scored)
        return race.result()._replace(proved=True)
    for name, found in _searches(problem, race):
        race.add(name, found)
    if race.over():
        return race.result()
    for name, solve in _slow(problem, race, time_limit_s):
        found = _tried(problem, solve)
        if found is not None:
            race.add(name, found)
        if race.over():
            break
    return race.result()


def _searches(problem: Problem, race: _Race) -> Iterator[tuple[str, Scored]]:
    """Yield what the methods without a time limit find; of a large cluster only the cheap ones."""
    if looks(problem) > MOST_CUT:
        race.left_out += ["mp-search", "mp-search-sep", "mp-greedy", "sr-greedy"]
        for name, solve in _dealt(problem):
            if (found := _tried(problem, solve)) is not None:
                yield name, found
        yield from (("mp-search of pods", found) for found in side_by_side(problem))
        return
    for name, solve in _baselines(problem):
        found = _tried(problem, solve)
        if found is not None:
            yield name, found
    cuts = list[Scored]()
    for found in cuts_filled(problem):
        cuts.append(found)
        yield "mp-search", found
        if race.walked > MOST_WALKED:
            race.left_out += ["mp-search", "mp-search-sep"]
            return
    yield from _cuts_of_batches(problem, race)
    if race.over():
        return
    together = sum(scored.walked for scored in cuts)
    for found in search_apart(problem, MOST_WALKED - race.walked, together):
        yield "mp-search-sep", found


def _cuts_of_batches(problem: Problem, race: _Race) -> Iterator[tuple[str, Scored]]:
    if not runs_together(problem) or race.over():
        return
    for found in as_it_is(problem, cuts_filled(amortised(problem))):
        yield "mp-search of batches", found
        if race.walked > MOST_WALKED:
            return


def runs_together(problem: Problem) -> bool:
    """Say whether requests run together where the question is played."""
    return problem.kind != "fast" and any(model.profile.batched for model in problem.models)


def _baselines(problem: Problem) -> Iterator[tuple[str, Callable[[], Scored]]]:
    devices, known = problem.cluster.devices, sorted(profiled(problem))
    for depth in [c.pp for c in known if c.op == 1 and devices % c.pp == 0]:
        yield f"mp-greedy-{depth}", lambda depth=depth: baselines.fixed_groups(problem, depth)
    yield from _dealt(problem)
    for op, pp in known:
        if op * pp * len(problem.models) == devices:
            yield (
                f"mp-equal-{pp}-{op}",
                lambda op=op, pp=pp: baselines.one_group_each(problem, pp, op),
            )
    if SINGLE in known:
        yield "sr-greedy", lambda: baselines.selective_replication(problem)


def _dealt(problem: Problem) -> Iterator[tuple[str, Callable[[], Scored]]]:
    """Yield the methods that deal models out without looking at the requests."""
    yield "mp-round-robin", lambda: baselines.round_robin(problem)
    if SINGLE in profiled(problem):
        yield "sr-uniform", lambda: baselines.uniform(problem)


def _slow(
    problem: Problem, race: _Race, time_limit_s: float
) -> Iterator[tuple[str, Callable[[], Scored]]]:
    """Yield the methods that take long, but for those that take too long here."""
    assert race.best is not None
    start, devices, models = race.best.scored, problem.cluster.devices, len(problem.models)
    huge, cells = looks(problem) > MOST_CUT, devices * models
    large = huge or race.walked > LARGE
    single = baselines.selective_replication(problem).placement.replicas if not large else 0
    beam = single * BEAM * cells * (len(problem.train) + BEAM_EACH)
    offered: list[tuple[str, bool, Callable[[], Scored]]] = [
        ("sr-search", not large and beam <= MOST_BEAM, lambda: replicated_by_beam(problem)),
        (
            "sr-ilp",
            cells <= MOST_PROGRAM,
            lambda: integer.replicated_by_program(problem, time_limit_s),
        ),
        ("mp-ilp", cells <= MOST_PROGRAM, lambda: integer.piped_by_program(problem, time_limit_s)),
        ("mp-evo", not large, lambda: evolve(problem, time_limit_s)),
        ("sr-evo", not large, lambda: evolve_replicas(problem, time_limit_s)),
        ("mp-improve", not huge, lambda: local_search(problem, start, time_limit_s)),
    ]
    searched = max(
        (top for name, top in race.tops.items() if name.startswith("mp-search")),
        key=lambda scored: scored.score,
    )
    if runs_together(problem):
        found = "mp-improve of batches"
        offered.append((found, not large, lambda: _improved_batches(problem, start, time_limit_s)))
    if searched.placement != start.placement and not huge:  # where `mp-improve` itself begins
        improve = ("mp-improve", not large, lambda: local_search(problem, searched, time_limit_s))
        offered.append(improve)
    for name, short, solve in offered:
        if short:
            yield name, solve
        else:
            race.left_out.append(name)


def _improved_batches(problem: Problem, start: Scored, time_limit_s: float) -> Scored:
    batches = amortised(problem)
    found = local_search(batches, score(batches, start.placement), time_limit_s)
    return next(as_it_is(problem, [found]))


def _tried(problem: Problem, solve: Callable[[], Scored]) -> Scored | None:
    """Return what a method finds; None where it does not apply, or its groups straddle nodes."""
    try:
        found = solve()
    except InputError:
        return None
    return None if packed(found.placement, problem.cluster) is None else found
