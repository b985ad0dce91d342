"""Recomputation and the sharded optimizer: what they save and cost, and plans that use them."""

import random
from math import prod
from pathlib import Path

import msgspec
import pytest

from common.devices import find
from common.errors import InputError
from metis.inputs.analytic import Machine, analytic
from metis.inputs.cluster import Cluster, NodeGroup
from metis.inputs.experiment import ClusterSource, Experiment, ProfileSource, SearchSettings
from metis.inputs.model import Model
from metis.inputs.profile import ProfileKey
from metis.inputs.savings import RECOMPUTES, Savers, Savings
from metis.plan.anytime import Search
from metis.plan.cells import Found
from metis.plan.methods import make_plan as plan_by
from metis.plan.outcome import Outcome
from metis.plan.plans import check
from metis.plan.problem import Problem
from metis.run.weights import weights
from tests.metis.brute import brute_force
from tests.metis.pools import problem_of, tiny_pool
from tests.metis.toy_plans import MODEL, make_plan

EVERYTHING = Savers(recompute=RECOMPUTES, sharded=True)


def tight_pool(seed: int) -> Problem:
    """Draw a tiny pool with little memory for its activations, whose stages may save it."""
    problem, draw = tiny_pool(seed), random.Random(seed)
    nodes = tuple(
        msgspec.structs.replace(node, memory_gb=draw.choice([1.0, 1.3, 1.7, 2.5]))
        for node in problem.cluster.nodes
    )
    for key, entry in problem.profiles.entries.items():
        memory = ((200.0 + 500.0 * key.bs) / key.tp,) * problem.model.layers
        problem.profiles.entries[key] = msgspec.structs.replace(entry, memory_mb=memory)
    problem.profiles.fill_savings(Savings(problem.model))
    return msgspec.structs.replace(problem, cluster=Cluster(nodes=nodes), savers=EVERYTHING)


def found(problem: Problem) -> Found | None:
    search = Search(problem)
    search.run()
    best = search.best()
    assert best.finished
    return best.found


@pytest.mark.parametrize("seed", range(10))
def test_the_best_plan_is_that_of_brute_force_over_what_stages_may_do(seed: int) -> None:
    problem = tight_pool(seed)
    ours, theirs = found(problem), brute_force(problem)
    assert (ours is None) == (theirs is None)
    if ours is not None:
        assert ours.cost_ms == pytest.approx(theirs, rel=1e-9)
        assert ours.plan.cost_ms <= ours.cost_ms


def saving(stages, *kinds, batches=2):
    """A plan whose stages recompute, and share out the optimizer where they have replicas."""
    plan = make_plan(stages, batches=batches)
    made = tuple(
        msgspec.structs.replace(stage, recompute=kind, sharded=stage.dp > 1)
        for stage, kind in zip(plan.stages, kinds, strict=True)
    )
    return msgspec.structs.replace(plan, stages=made)


SAVING = saving([(3, 1, 2, (1, 2, 1)), (1, 2, 3, (4,))], "full", "selective")
FLOAT64 = {"dtype": "float64", "timeout_s": 60}


@pytest.mark.timeout(300)
def test_a_plan_that_saves_memory_trains_as_one_process_does() -> None:
    oracle = pytest.importorskip("tests.metis.test_run")
    training = oracle.Training(**FLOAT64, clip=0.5)
    losses, gradients, _ = oracle.plain_training(MODEL, training)
    ours = oracle.launch(SAVING, steps=3, training=training)
    assert ours.losses == pytest.approx(losses, rel=1e-6)
    norm = sum(gradient.square().sum() for gradient in gradients.values()).sqrt().item()
    assert ours.gradient_norms[0] == pytest.approx(norm, rel=1e-9)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_checkpoint_of_shards_is_whole(tmp_path: Path) -> None:
    run = pytest.importorskip("metis.run")
    plain = run.Training(**FLOAT64)
    keeping = msgspec.structs.replace(plain, checkpoint_every=2)
    whole = run.launch(make_plan([(1, 1, 5, (4,))]), steps=4, training=plain)
    run.launch(SAVING, steps=2, out=tmp_path, training=keeping)
    resumed = msgspec.structs.replace(plain, resume=str(tmp_path / "checkpoints"))
    other = run.launch(saving([(2, 2, 5, (3, 1))], "selective"), steps=4, training=resumed)
    assert other.losses == pytest.approx(whole.losses[2:], rel=1e-9)
    assert other.gradient_norms == pytest.approx(whole.gradient_norms[2:], rel=1e-8)


def test_owners_hold_as_much_as_one_another_and_every_weight_once() -> None:
    shards = pytest.importorskip("metis.run.shards")
    stage = msgspec.structs.replace(make_plan([(3, 1, 5, (1, 2, 1))]).stages[0], sharded=True)
    found, held = shards.owners(MODEL, stage), [0, 0, 0]
    sizes = {
        (n, name): prod(w.shape)
        for n in range(MODEL.layers)
        for name, w in weights(MODEL, n).items()
    }
    for key, owner in found.items():
        held[owner] += sizes[key]
    assert sum(held) == sum(sizes.values())
    assert max(held) - min(held) <= max(sizes.values())
    alone = msgspec.structs.replace(stage, sharded=False)
    assert set(shards.owners(MODEL, alone).values()) == {0}


def test_what_blocks_keep_follows_what_they_recompute() -> None:
    torch = pytest.importorskip("torch")
    from metis.run.measure.memory import layer_memory
    from metis.run.model import Place, build
    from metis.run.parallel import TensorGroup

    model = Model(layers=3, hidden_size=64, sequence_length=32, vocabulary=32, heads=4)
    x = torch.randn(2, 32, 64, requires_grad=True)
    kept = {}
    for kind in RECOMPUTES:
        place = Place(TensorGroup(None, 0, 1), 0, torch.float32, torch.device("cpu"), kind)
        kept[kind] = layer_memory(build(model, 1, place), x, None).activations
    assert kept["full"] == x.nbytes
    assert kept["none"] - kept["selective"] == 2 * 4 * x.nbytes
    savings = Savings(model)
    for kind in ("selective", "full"):
        assert kept[kind] / kept["none"] == pytest.approx(savings.kept(1, kind)[1], abs=0.05)


GPT = Model(layers=26, hidden_size=4096, vocabulary=51200, heads=32, global_batch=16)


def test_by_the_data_sheet_a_block_goes_forward_again_with_its_two_all_reduces() -> None:
    for tp in (1, 4):
        machine = Machine(find("A100"), 300.0)
        entry = analytic(GPT, {"X": machine}, max_tp=4, max_batch_size=1)[ProfileKey("X", tp, 1)]
        reduce = 1e3 * 2 * (tp - 1) / tp * 1024 * 4096 * 2 / (0.7 * 300e9)
        assert entry.again_ms["full"][1] == pytest.approx((entry.layer_ms[1] + 2 * reduce) / 3)
        assert 0.5 < entry.again_ms["selective"][1] / entry.again_ms["full"][1] < 2 / 3
        assert all(times[0] == times[-1] == 0 for times in entry.again_ms.values())


def test_shares_follow_the_sizes_of_a_gpt() -> None:
    """Of 16 h values a token, 1 h is the input and 8 h are the MLP's (degree 1)."""
    savings = Savings(GPT, states=12 / 18)
    assert savings.kept(1, "full")[1] == pytest.approx(1 / 16)
    assert savings.kept(1, "selective")[1] == pytest.approx(1 / 2)
    assert savings.kept(4, "full")[1] == pytest.approx(1 / (4 + 12 / 4))
    assert savings.held(4) == pytest.approx((6 + 12 / 4) / 18)
    assert savings.again("full")[1] == pytest.approx(1 / 3)
    mlp, whole = 16 * 4096**2, 24 * 4096**2 + 2 * 1024 * 4096
    assert savings.again("selective")[1] == pytest.approx(mlp / whole / 3, rel=1e-3)


def own(memory_gb: float, **search: object) -> Experiment:
    """A GPT of 24 blocks on one node of 4 A100 with so much memory."""
    node = NodeGroup(device="A100", devices=4, memory_gb=memory_gb)
    return Experiment(
        name="own",
        model=msgspec.structs.replace(GPT, sequence_length=2048),
        cluster=ClusterSource(nodes=(node,)),
        profile=ProfileSource(source="analytic", max_tp=1, max_batch_size=4),
        search=SearchSettings(**search),
    )


def answer(asked: Experiment) -> Outcome:
    return plan_by(asked, problem_of(asked), "optimal")


def test_a_model_that_fits_with_recomputation_only_gets_a_plan() -> None:
    tight = own(28.0)
    plan = answer(tight).plan
    assert plan is not None
    check(plan)
    assert any(stage.recompute != "none" for stage in plan.stages)
    assert all(stage.memory_mb <= stage.capacity_mb for stage in plan.stages)
    without = msgspec.structs.replace(tight.search, recompute=("none",))
    assert "no plan fits" in answer(msgspec.structs.replace(tight, search=without)).why_none
    roomy = answer(own(300.0)).plan
    assert roomy is not None
    assert roomy.cost_ms < plan.cost_ms
    assert {stage.recompute for stage in roomy.stages} == {"none"}


def test_more_choice_is_never_slower_and_what_is_wanted_is_done() -> None:
    free, costs = answer(own(80.0)).plan, dict[tuple[str, str], float]()
    for kind in RECOMPUTES:
        for optimizer in ("replicated", "sharded"):
            plan = answer(own(80.0, recompute=(kind,), optimizer=optimizer)).plan
            if plan is not None:
                assert {stage.recompute for stage in plan.stages} == {kind}
                assert optimizer == "sharded" or not any(stage.sharded for stage in plan.stages)
                costs[kind, optimizer] = plan.cost_ms
    assert free is not None
    assert free.cost_ms <= min(costs.values()) * (1 + 1e-9)


def test_methods_of_the_paper_refuse_what_they_do_not_know() -> None:
    for method in ("metis", "stratified", "walks"):
        with pytest.raises(InputError, match="which knows no recomputation and no sharded"):
            SearchSettings(method=method, recompute=("full",))
        SearchSettings(method=method, recompute=("none",))
    with pytest.raises(InputError, match="need mode strict"):
        SearchSettings(mode="compat", method="optimal", optimizer="sharded")
