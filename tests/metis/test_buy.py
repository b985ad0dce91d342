"""Plans for the money: the cheapest of all choices of nodes, and the fastest within a budget."""

from itertools import product
from math import inf

import msgspec
import pytest

from common.errors import InputError
from metis.inputs.cluster import Cluster
from metis.inputs.experiment import SearchSettings
from metis.plan.anytime import Search
from metis.plan.methods import make_plan
from metis.plan.money import HOUR_MS, Bargain, Wish, list_price, price
from metis.plan.problem import Problem
from tests.metis.pools import H100, pool, problem_of, tiny_pool

PRICES = {"A": 4.0, "B": 1.5, "C": 0.25}


def priced(seed: int) -> Problem:
    """A tiny pool in which slow devices are cheap."""
    problem = tiny_pool(seed)
    nodes = tuple(
        msgspec.structs.replace(node, usd_per_hour=PRICES[node.device])
        for node in problem.cluster.nodes
    )
    return msgspec.structs.replace(problem, cluster=Cluster(nodes=nodes))


def by_hand(problem: Problem, wish: Wish) -> float:
    """The best value over every subset of nodes, each searched on its own."""
    best, groups = inf, problem.cluster.nodes
    for taken in product((False, True), repeat=len(groups)):
        nodes = tuple(group for group, used in zip(groups, taken, strict=True) if used)
        usd = sum((group.usd_per_hour or 0) * group.devices for group in nodes)
        if not nodes or usd > wish.usd_per_hour:
            continue
        cluster = Cluster(nodes=nodes)
        types = tuple(cluster.device_types())
        search = Search(msgspec.structs.replace(problem, cluster=cluster, node_types=types))
        search.run()
        found = search.best().found
        if found is not None:
            best = min(best, found.cost_ms * usd / HOUR_MS if wish.cost else found.cost_ms)
    return best


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("wish", [Wish(True), Wish(False, 6.0), Wish(True, 4.0)])
def test_the_best_for_the_money_is_that_of_all_subsets_of_nodes(seed: int, wish: Wish) -> None:
    problem = priced(seed)
    search = Bargain(problem, wish)
    search.run()
    best, theirs = search.best(), by_hand(problem, wish)
    assert best.finished
    assert (best.found is None) == (theirs == inf)
    if best.found is not None:
        assert search.value == pytest.approx(theirs, rel=1e-9)
        assert best.lower_bound_ms == pytest.approx(theirs, rel=1e-9)
        machines = problem.cluster.machines()
        used = [machines[number] for number in best.found.machines]
        assert price(used) <= wish.usd_per_hour
        assert search.worth(best.found) == search.value


def test_the_sentence_tells_price_and_proof_and_a_stopped_search_its_bound() -> None:
    asked = pool(
        msgspec.structs.replace(H100, count=2, usd_per_hour=3.0),
        layers=12, batch=16, scale={"H100": 0.4}, objective="cost", max_usd_per_hour=30.0,
    )  # fmt: skip
    outcome = make_plan(asked, problem_of(asked), "optimal")
    assert outcome.plan is not None
    assert "24.00 USD an hour" in outcome.summary
    assert "USD for 10^9 tokens; proven the cheapest of all plans" in outcome.summary
    assert "within 30 USD an hour. Nodes left out: 1 of 8 x H100." in outcome.summary
    assert "List prices" not in outcome.summary
    search = Bargain(problem_of(asked), Wish(True))
    search.stop()
    search.run()
    assert search.best().lower_bound_ms <= search.value
    poor = msgspec.structs.replace(asked.search, max_usd_per_hour=1.0)
    nothing = make_plan(msgspec.structs.replace(asked, search=poor), problem_of(asked), "optimal")
    assert nothing.plan is None
    assert "or raise search.max_usd_per_hour (1)" in nothing.why_none


def test_prices_that_nobody_knows_and_methods_without_prices_are_one_sentence() -> None:
    assert list_price("A100") > 0
    with pytest.raises(InputError, match="no price of it; write usd_per_hour"):
        list_price("toaster")
    with pytest.raises(InputError, match="need method optimal"):
        SearchSettings(method="wider", objective="cost")
    with pytest.raises(InputError, match=r"usd_per_hour is -1.0, expected a positive"):
        msgspec.structs.replace(H100, usd_per_hour=-1.0)
