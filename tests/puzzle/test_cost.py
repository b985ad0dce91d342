"""The cost model against the published runs, the timeline beside it."""

import msgspec
import pytest

from common.errors import InputError
from common.files import read_plan, write_plan
from puzzle.inputs.cluster import known_clusters
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.inputs.workload import Workload
from puzzle.paper.experiments import named
from puzzle.paper.fitting import calibration
from puzzle.paper.published import distinct_runs, published_runs
from puzzle.plan.plans import Plan, check, make_plan
from puzzle.simulate.activations import cache
from puzzle.simulate.cost import generation_time, inference_time, training_time
from puzzle.simulate.fit import errors, fit
from puzzle.simulate.predict import predict
from puzzle.simulate.rates import Rates, rates_of
from puzzle.simulate.timeline import inference_timeline, least_training, training_timeline

pytestmark = pytest.mark.timeout(600)

ORION = known_clusters()["orion"]


def test_the_published_runs_are_all_there():
    assert len(published_runs()) == 101
    assert len(distinct_runs()) == 73


def test_the_model_reproduces_the_published_runs():
    found = {metric.name: metric.value for metric in calibration()}
    assert found["error.training.mean"] <= 3.5
    assert found["error.inference.mean"] <= 7.5
    assert found["error.generation.mean"] <= 11.5


def test_the_specifications_constants_reach_what_it_says():
    found = {metric.name: metric.value for metric in calibration("plain")}
    assert found["error.plain.training.mean"] == pytest.approx(3.3, abs=0.3)
    assert found["error.plain.inference.mean"] == pytest.approx(7.2, abs=0.2)
    assert found["error.plain.generation.mean"] == pytest.approx(11.3, abs=0.3)


def test_the_shipped_constants_are_the_fits():
    table = fit(distinct_runs())
    for cluster, constants in table.items():
        shipped = known_clusters()[cluster].constants
        assert constants.full_ring == pytest.approx(shipped.full_ring, rel=1e-3)
        assert constants.allreduce_gbps == pytest.approx(shipped.allreduce_gbps, rel=1e-3)
        assert constants.efficiency == pytest.approx(shipped.efficiency, rel=1e-3)
    assert errors(distinct_runs(), table).generation[0] < 0.07


@pytest.mark.parametrize("name", ["orion-7b-7b", "orion-13b-7b", "phoenix-33b-7b"])
def test_the_timeline_is_near_the_closed_form(name: str):
    experiment = named()[name]
    plan = make_plan(experiment, "released")
    on = rates_of(plan, experiment.machines)
    times = predict(plan, experiment.machines).times
    assert training_timeline(plan, on).seconds == pytest.approx(times.training, rel=0.09)
    merged = inference_timeline(plan, on).seconds + on.c.inference_s
    assert merged < times.inference


def test_merging_never_takes_longer_and_the_critics_update_costs_something():
    layout, work, c = Layout(pipeline=8), Workload(batch=128), Rates(ORION.constants)
    actor = critic = named()["orion-7b-7b"].actor_model
    one = training_time(actor, critic, layout, work, c, merged=False)
    right = training_time(actor, critic, layout, work, c, merged=True)
    released = training_time(actor, critic, layout, work, c, merged=True, steps_critic=False)
    assert released < right < one
    a, b = (inference_time(actor, critic, layout, work, c, merged=m) for m in (True, False))
    assert a < b


def test_a_full_ring_is_slower_than_a_ring_with_one_place_free():
    model, layout = named()["orion-7b-7b"].actor_model, Layout(pipeline=8)
    full = Workload(batch=128, decode_micro_batch=16)
    c = Rates(ORION.constants)
    plain = Rates(msgspec.structs.replace(ORION.constants, full_ring=1.0))
    assert generation_time(model, layout, full, c) > generation_time(model, layout, full, plain)
    half = Workload(batch=128, decode_micro_batch=32)
    assert generation_time(model, layout, half, c) == generation_time(model, layout, half, plain)


@pytest.mark.parametrize("name", ["orion-7b-7b", "orion-13b-7b", "orion-33b-7b"])
def test_no_fused_order_is_shorter_than_the_fullest_ranks_passes(name: str):
    experiment = named()[name]
    plan = make_plan(experiment, "given")
    c = rates_of(plan, experiment.machines)
    least = least_training(plan.actor, plan.critic, plan.choice.training, plan.work, c)
    assert least <= training_timeline(plan, c, "fused").seconds


def test_grouped_keys_need_less_cache_and_fewer_products():
    wide = Llama(layers=8, hidden=512, heads=8, ffn=1024)
    grouped = msgspec.structs.replace(wide, kv_heads=2)
    layout, work, c = Layout(tensor=2), Workload(batch=64), Rates(ORION.constants)
    assert cache(grouped, layout, work) == cache(wide, layout, work) / 4
    assert generation_time(grouped, layout, work, c) < generation_time(wide, layout, work, c)
    both = (training_time(m, m, layout, work, c, merged=True) for m in (grouped, wide))
    assert next(both) < next(both)


def test_a_plan_reads_back_equal(tmp_path):
    plan = make_plan(named()["orion-13b-7b"], "given")
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json", Plan, check) == plan
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="not a valid plan"):
        read_plan(tmp_path / "bad.json", Plan, check)
    with pytest.raises(InputError, match="no such plan file"):
        read_plan(tmp_path / "none.json", Plan, check)


def test_batches_that_do_not_divide_are_refused():
    experiment = msgspec.structs.replace(named()["orion-7b-7b"], work=Workload(batch=10))
    with pytest.raises(InputError, match="does not divide the 10 sequences"):
        make_plan(experiment, "given")
