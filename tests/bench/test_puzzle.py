"""Puzzle's planning beside the textbook's way of doing the same (`make bench`)."""

import msgspec
import pytest

from puzzle.inputs.experiment import Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, known_models
from puzzle.inputs.workload import divisors
from puzzle.paper.experiments import named
from puzzle.plan import planner
from puzzle.plan.fused import fused_programs
from puzzle.plan.passes import Pass
from puzzle.plan.plans import make_plan, switch_of
from puzzle.plan.play import play
from puzzle.plan.reshard import ReshardPlan, make_reshard_plan
from puzzle.plan.schedules import fused
from puzzle.plan.slices import held
from puzzle.plan.space import layouts
from puzzle.simulate.predict import fused_time, predict
from tests.bench.yardstick import Table, Yardstick

pytestmark = pytest.mark.timeout(600)
TRAIN, GENERATE = Layout(pipeline=32), Layout(pipeline=8, tensor=4)


def every_pair(plan: ReshardPlan) -> int:
    """Hold every new slice of every rank against every old one; return the parts that overlap."""
    model = known_models()["33b"]
    old = [
        piece
        for stage in range(TRAIN.pipeline)
        for part in range(TRAIN.tensor)
        for piece in held(model, "actor", TRAIN, stage, part)
    ]
    return sum(
        piece.tensor == whole.tensor and piece.overlap(whole) is not None
        for place in plan.places
        for whole in held(model, "actor", GENERATE, place.stage, place.slice)
        for piece in old
    )


@pytest.mark.parametrize(
    ("mapping", "at_least"), [("original", 4), ("interleaved", 4), ("overlap", 1.8)]
)
def test_a_switch_beside_all_pairs_of_slices(table: Table, mapping: str, at_least: float) -> None:
    """Measured: 10 to 11, 10 to 11, 3.9 to 4.7."""
    model = known_models()["33b"]
    made = make_reshard_plan(TRAIN, GENERATE, model, mapping)
    plan = table.compare(
        f"puzzle: switch of 33B on 32 ranks, {mapping}",
        lambda: make_reshard_plan(TRAIN, GENERATE, model, mapping),
        Yardstick("every new slice against every old", lambda: every_pair(made)),
        at_least=at_least,
        work=lambda one: {"moves": len(one.moves), "slices kept": len(one.aliased)},
        exactly={"moves": 1737, "slices kept": 579},
    )
    assert len(plan.moves) + len(plan.aliased) == every_pair(plan)


def forget() -> None:
    for cached in (switch_of, fused_programs, fused_time):
        cached.cache_clear()


def space(experiment: Experiment) -> int:
    """Return how many plans there are: layouts and micro-batches of both sides, three schedules."""
    batch, world = experiment.work.batch, experiment.world
    most, actor = experiment.machines.devices_per_node, experiment.actor_model

    def cuts(*models: Llama) -> list[list[int]]:
        every = layouts(world, most, *models)
        return [divisors(batch // one.data) for one in every if batch % one.data == 0]

    training = sum(len(sizes) ** 2 for sizes in cuts(actor, experiment.critic_model))
    generation = sum(len(divisors(size)) for sizes in cuts(actor) for size in sizes)
    return 3 * training * generation


def test_the_planner_beside_predicting_every_plan(table: Table) -> None:
    """The yardstick predicts the plans that are shown, each anew, and counts per plan.

    Measured: 7,200 to 8,300.
    """
    experiment = named()["phoenix-33b-7b"]
    plans, shown = space(experiment), list[planner.Candidate]()

    def search() -> tuple[planner.Candidate, ...]:
        forget()
        shown[:] = planner.search(experiment).best
        return (*shown,)

    def each() -> None:
        for candidate in shown:
            forget()
            asked = msgspec.structs.replace(experiment, work=candidate.plan.work)
            predict(make_plan(asked, "auto", candidate.plan.choice), experiment.machines)

    found = table.compare(
        "puzzle: planner, 33B/7B on 32 devices",
        search,
        Yardstick(f"{planner.SHOWN} plans predicted", each, planner.SHOWN),
        at_least=2000,
        work=lambda _: {"plans to choose from": plans},
        exactly={"plans to choose from": 877_896},
        per="plans to choose from",
    )
    assert len(found) == planner.SHOWN


def test_a_fused_order_beside_playing_it_once(table: Table) -> None:
    """Twelve orders are found by playing; measured: 0.044 to 0.049."""

    def find() -> tuple[tuple[Pass, ...], ...]:
        fused_programs.cache_clear()
        return fused_programs(16, 64)

    schedule = fused(16, 64)
    programs = table.compare(
        "puzzle: fused order, 16 stages, 64 micro-batches",
        find,
        Yardstick("the order played once", lambda: play(schedule, lambda rank, item: 1.0)),
        at_least=0.018,
        work=lambda found: {"passes": sum(map(len, found))},
        exactly={"passes": 4192},
    )
    assert schedule.programs == programs
