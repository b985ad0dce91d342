"""The default method: all methods' answers in one contest, and the best of them improved.

No method is best on all clusters: the flow's optimum is on slow links, where the closed form errs;
the closed form's and the simulated search's where links are fast; one pipeline a kind where kinds
hardly go together. So each answers, every answer is simulated under the user's own workload, by
several splits of its flow, and the search goes on from the best. What is chosen is at least as good
there as every method's own answer that was found in the time there was. The solvers of the MILPs
have a share of it first and then as long as all else took (`helix.plan.exact`), since few win that
are not done by then; what was stopped is named in the plan, with what its bound leaves open.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from common.errors import CaseError, InputError
from helix.inputs.search import Objective, Split
from helix.plan.baselines import swarm
from helix.plan.clock import Clock
from helix.plan.contest import Contest, Entry, Judged, estimated, runs_of, score_of
from helix.plan.exact import Solvers
from helix.plan.only import only_placement
from helix.plan.placement import UNUSED
from helix.plan.placing import PLACING
from helix.plan.plans import Service, Trace
from helix.plan.published import solutions_for
from helix.plan.question import Intervals, Made, Question, Served, Simulator
from helix.plan.search import Found, kept
from helix.plan.search_loop import Loop
from helix.plan.search_problem import search_problem
from helix.plan.searching import budget_of, searched

SPLITS: tuple[Split, ...] = ("least-latency", "max-flow", "balanced")
BASELINES = ("separate", "homogeneous", "petals", "swarm")
EXACT_SHARE, FLOW_SHARE = 0.03, 0.1  # of the time, for the MILPs at first and the flow's search
PROVED = 1e-4  # relative gap below which a flow counts as the largest, as for the solvers
FINALISTS = 6  # of a search's placements that are judged like the methods' answers
SPLIT_UP = 4  # of the best answers that the other splits are tried of
WITHOUT = 8  # machines that the best answer is tried without, one by one
CLOSE, DRAWS = 0.99, 3  # answers of that share of the best are told apart by so many draws
POLISH = 4  # one of so many of the search's simulations goes on from the best of all
JUDGING = 0.3  # of the time that is left, at most, is kept for what comes after the search


def place_portfolio(
    question: Question, objective: Objective, seed: int, simulator: Simulator,
    advance: Callable[[int], None], clock: Clock,
) -> Made:  # fmt: skip
    """Return the best of all; CaseError where no method has an answer."""
    folio = Portfolio(question, objective, seed, simulator, advance, clock)
    with kept(clock, folio.contest.judged):
        folio.fill()
    return folio.made()


class Portfolio:
    """The methods' answers to a question, and the search that goes on from them."""

    def __init__(
        self, question: Question, objective: Objective, seed: int, simulator: Simulator,
        advance: Callable[[int], None], clock: Clock,
    ) -> None:  # fmt: skip
        """Begin without any answer."""
        self.question, self.seed = question, seed
        self.objective: Objective = objective
        self.simulator, self.advance, self.clock = simulator, advance, clock
        self.problem = search_problem(
            question.cluster, question.model, question.profiles, question.speed, simulator.mix
        )
        self.contest = Contest(question, objective, simulator, clock, self._estimate)
        self.evaluations = self.simulations = 0
        self.bound, self.solver = np.inf, ""
        self.steps = list[Trace]()
        self.cut = list[str]()
        self._cut_short = False  # the search, by the time
        self.chosen: Judged | None = None
        self._unjudged = list[Entry]()
        self._believed = list[Judged]()

    def fill(self) -> None:
        """Let every method answer, as far as time goes, and choose."""
        only = only_placement(self.question)
        if only is not None:
            self._enter([self._entry("the only placement", only)])
            return
        for name in BASELINES:
            self._answer(name, self.question)
        self._known_answers()
        with Solvers(self.question, self.seed, self.clock) as solvers:
            solvers.begin(EXACT_SHARE * self.clock.limit_s)
            if self.objective == "simulated":
                self._flow()
                self._search()
            else:
                self._take(self._searched(self.objective, self.clock, "search"), "search")
            self._exact(solvers)
        if self.objective == "simulated":
            self._split_up()
            self._polish()
            self._split_up()
            self.chosen = self._told_apart()

    def _answer(self, name: str, question: Question, called: str = "") -> None:
        """Enter a method's own answer, or why it has none."""
        called = called or name
        try:
            made = PLACING[name](question, self.seed, self.clock)
        except (InputError, CaseError) as error:
            self.contest.refuse(called, str(error))
            return
        split = question.search.split if len(made.services) == 1 else ""
        self._enter([Entry(called, split, made.services)])

    def _known_answers(self) -> None:
        """Enter the artifact's placements for this cluster and model, and more equal stages."""
        question = self.question
        for name in solutions_for(question.named, question.model.layers):
            search = msgspec.structs.replace(question.search, published=name)
            self._answer("published", question._replace(search=search), f"published ({name})")
        layers, machines = question.model.layers, len(question.cluster.nodes)
        for stages in [s for s in range(2, min(layers, machines) + 1) if layers % s == 0]:
            try:
                runs = swarm(question.cluster, question.model, question.speed, stages).intervals
            except InputError:
                continue
            self._enter([self._entry(f"swarm ({stages} stages)", runs)])

    def _exact(self, solvers: Solvers) -> None:
        """Enter the solvers' answers, when they are done or where time is up."""
        spent = self.clock.seconds()
        end = min(2 * spent, spent + (1 - JUDGING) * self.clock.left())
        if self.objective == "flow" and self.contest.judged:  # theirs to prove
            end = self.clock.limit_s
        elif self._cut_short:
            end = 0.0
        while not self.clock.interrupted:
            left = 0.0 if self._largest() else max(end - self.clock.seconds(), 0.0)
            one = solvers.next(left)
            if one is None:
                return
            if one.made is None:
                self.contest.refuse(one.method, one.said)
                continue
            cut = one.made.facts["cut"]
            self.cut += cut
            said = one.said or " ".join(cut).partition(": ")[2]
            self._enter([Entry(one.method, self.question.search.split, one.made.services, said)])
            if one.method == "position":  # the paper's MILP may be of pruned links
                self.bound = min(self.bound, one.made.facts["bound"])
                self.solver = one.made.facts["solver"]

    def _largest(self) -> bool:
        """Say whether the flow is what counts, and no placement has more than the best so far."""
        if self.objective != "flow" or not self.contest.judged:
            return False
        bound = min(self.bound, self.question.bound())
        return self.contest.ranked()[0].score >= (1 - PROVED) * bound

    def _flow(self) -> None:
        with self.clock.part(FLOW_SHARE * self.clock.limit_s) as clock:
            self._take(self._searched("flow", clock, "flow"), "flow")

    def _search(self) -> None:
        """Run the method search as it is; then its best few are judged by the user's workload."""
        simulations = FINALISTS + 3 * SPLIT_UP + WITHOUT
        kept_s = min(simulations * self.contest.slowest_s, JUDGING * self.clock.left())
        with self.clock.part(self.clock.left() - kept_s) as clock:
            self._take(self._searched("simulated", clock, "search"), "search")
            self._cut_short = clock.over()

    def _searched(self, objective: Objective, clock: Clock, called: str) -> Found | None:
        begin = self.clock.seconds()
        question, seed, simulator = self.question, self.seed, self.simulator
        try:
            if not clock.over():
                return searched(question, objective, seed, simulator, self.advance, clock)
        except CaseError as error:
            self.contest.refuse("search", str(error))
        finally:
            if clock.over():
                self.cut.append(f"{called}: stopped after {self.clock.seconds() - begin:.1f} s")
        return None

    def _draw(self, runs: Intervals, draw: int, clock: Clock, split: Split | None = None) -> float:
        one = self.question.service(self.question.placed(runs), split=split)
        if one.flow <= 0:
            return 0.0
        served = self.simulator.own((one,), draw + 1, clock.flag)
        return score_of(served, online=self.simulator.online)

    def _take(self, found: Found | None, called: str) -> None:
        if found is None:
            return
        self.evaluations += found.evaluations
        self.simulations += found.simulations
        self.steps += [Trace(step.seconds, step.value) for step in found.steps]
        if self.objective == "simulated" and self.clock.over():
            if found.simulations:
                self._believe(self._entry(called, found.intervals), found.value)
            return
        best = [found.intervals, *found.ranked[: FINALISTS - 1]]
        self._enter([self._entry(called, runs) for runs in dict.fromkeys(best)])

    def _believe(self, entry: Entry, value: float) -> None:
        """Take an answer by what a search has simulated, where there is no time for more."""
        self._believed.append(Judged(entry, Served(value, np.inf, False), value))
        self.contest.judged.append(self._believed[-1])

    def _entry(self, called: str, runs: Intervals, split: Split | None = None) -> Entry:
        split = split or self.question.search.split
        return Entry(
            called, split, (self.question.service(self.question.placed(runs), split=split),)
        )

    def _enter(self, entries: Sequence[Entry]) -> None:
        able = [one for one in entries if sum(service.flow for service in one.services) > 0]
        able += [one for one in entries if one not in able and one.services[0].kinds]
        self._unjudged += able
        self.contest.enter(able)

    def _split_up(self) -> None:
        """Try the best answers with other splits of their flow."""
        if self.clock.over():
            return
        best = [one for one in self.contest.ranked() if len(one.entry.services) == 1][:SPLIT_UP]
        size = len(self.question.cluster.nodes), self.question.model.layers
        entries = list[Entry]()
        for one in best:
            # By machine of the whole cluster, for a service may stand on some of them alone.
            if (runs := runs_of(one.entry, *size)) is None:
                continue
            judged = [o.entry for o in self.contest.judged if len(o.entry.services) == 1]
            tried = {entry.split for entry in judged if runs_of(entry, *size) == runs}
            entries += [self._entry(one.entry.method, runs, s) for s in SPLITS if s not in tried]
        self._enter(entries)

    def _polish(self) -> None:
        """Go on from the best answers, the simulator in the loop."""
        machines, layers = len(self.question.cluster.nodes), self.question.model.layers
        ranked = self.contest.ranked()
        found = [runs_of(one.entry, machines, layers) for one in ranked]
        best = list(dict.fromkeys(runs for runs in found if runs))[:SPLIT_UP]
        if not best or self.clock.over():
            return
        known: dict[str, Split] = {s: s for s in SPLITS}
        split = known.get(ranked[0].entry.split)
        budget = budget_of(self.question)
        budget = budget._replace(simulations=budget.simulations // POLISH)
        kept_s = min(2 * SPLIT_UP * self.contest.slowest_s, JUDGING * self.clock.left())
        with self.clock.part(self.clock.left() - kept_s) as clock:
            loop = Loop(
                self.problem, best, lambda runs, draw: self._draw(runs, draw, clock, split),
                self.advance, budget, clock, self.seed + 1, partial=self.question.search.partial,
            )  # fmt: skip
            with kept(clock, best):
                loop.simulate([*best, *self._without(best[0])])
                loop.run()
        self.evaluations += loop.evaluations
        self.simulations += loop.simulations
        if self.clock.over():
            runs, value = loop.winner() or (best[0], 0.0)
            self._believe(self._entry("improved", runs, split), value)
        else:
            improved = [self._entry("improved", runs, split) for runs in loop.ranked()[:FINALISTS]]
            self._enter(improved)

    def _without(self, runs: Intervals) -> list[Intervals]:
        """Return a placement without one of the machines that it needs least."""
        one = self._entry("", runs).services[0]
        through = {i: sum(r.flow for r in one.routes if r.head == i + 2) for i in range(len(runs))}
        used = sorted((i for i in through if runs[i] != UNUSED), key=lambda i: through[i])
        return [(*runs[:i], UNUSED, *runs[i + 1 :]) for i in used[:WITHOUT]]

    def _told_apart(self) -> Judged | None:
        """Return the best on average over draws that no method's own answer beats by the first."""
        ranked = self.contest.ranked()
        if not ranked or self.clock.over() or self.simulator.online:
            return None
        close = [one for one in ranked if one.score >= CLOSE * ranked[0].score]
        others = [one.score for one in ranked if one.entry.method != "improved"]
        able = [one for one in close if one.score >= max(others, default=0.0)][:FINALISTS]
        means = dict[int, float]()
        for number, one in enumerate(able if len(able) > 1 else ()):
            scores = [one.score, *(self.contest.draw(one, draw) for draw in range(1, DRAWS))]
            if np.isfinite(scores).all():
                means[number] = float(np.mean(scores))
        return able[max(means, key=lambda number: means[number])] if means else None

    def _estimate(self, one: Service) -> float | None:
        return estimated(self.question, self.problem, one)

    def made(self) -> Made:
        """Return the best answer as a plan's parts."""
        ranked = self.contest.ranked()
        best = self.chosen or (ranked[0] if ranked else None)
        if best is None and self._unjudged:  # there was no time for a simulation
            entry = max(self._unjudged, key=lambda one: sum(s.flow for s in one.services))
            return Made(entry.services, {"found_by": entry.method, "cut": tuple(self.cut)})
        if best and best.score <= 0:  # nothing is decoded in so short a window: the flow decides
            best = max(ranked, key=lambda one: sum(s.flow for s in one.entry.services))
        if best is None:
            refused = self.contest.refused
            raise CaseError(
                refused[-1].said
                if refused
                else "no method found a placement that work can pass through; add links or machines"
            )
        facts: dict[str, Any] = {
            "found_by": best.entry.method,
            "compared": self.contest.table(),
            "evaluations": self.evaluations,
            "simulations": self.simulations + self.contest.simulations,
            "trace": tuple(self.steps),
            "cut": tuple(self.cut),
        }
        # What a search has simulated is by draws of its own, and no figure for the plan.
        if self.objective == "simulated" and not any(best is one for one in self._believed):
            facts["simulated"] = best.served.rate
        if np.isfinite(self.bound):
            facts |= {"bound": min(self.bound, self.question.bound()), "solver": self.solver}
        return Made(best.entry.services, facts)
