"""The cost model against the published runs, the timeline beside it, memory, the planner."""

from io import StringIO

import msgspec
import pytest
from rich.console import Console

from common.errors import InputError
from puzzle import planner, show
from puzzle.experiments import PAIRS, named
from puzzle.fitting import calibration
from puzzle.inputs.cluster import known_clusters
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, known_models
from puzzle.inputs.published import distinct_runs, published_runs
from puzzle.inputs.workload import Workload
from puzzle.plan.check import peak_live
from puzzle.plan.plans import make_plan, read, write
from puzzle.plan.schedules import make_schedule, pass_ratio
from puzzle.simulate.cost import generation_time, inference_time, training_time
from puzzle.simulate.fit import errors, fit
from puzzle.simulate.memory import activations, cache, flying, states
from puzzle.simulate.predict import predict
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
    c = experiment.machines.constants
    times = predict(plan, experiment.machines).times
    assert training_timeline(plan, c).seconds == pytest.approx(times.training, rel=0.09)
    merged = inference_timeline(plan, c).seconds + c.inference_s
    assert merged < times.inference


def test_merging_never_takes_longer_and_the_critics_update_costs_something():
    layout, work, c = Layout(pipeline=8), Workload(batch=128), ORION.constants
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
    c = ORION.constants
    plain = msgspec.structs.replace(c, full_ring=1.0)
    assert generation_time(model, layout, full, c) > generation_time(model, layout, full, plain)
    half = Workload(batch=128, decode_micro_batch=32)
    assert generation_time(model, layout, half, c) == generation_time(model, layout, half, plain)


def test_states_are_eighteen_bytes_a_parameter():
    model = Llama(layers=2, hidden=8, heads=2, ffn=8, vocabulary=10)
    held = 2 * (4 * 64 + 3 * 64 + 16) + 8
    assert states(model, model, Layout()) == 18 * (2 * held + 2 * 80 + 80 + 8)


@pytest.mark.parametrize("cluster", sorted(PAIRS))
def test_the_planner_is_no_worse_than_the_authors(cluster: str):
    experiment = named()[f"{cluster}-7b-7b"]
    best = planner.search(experiment)[0]
    theirs = predict(make_plan(experiment, "given"), experiment.machines)
    assert best.predicted.times.step <= theirs.times.step
    assert best.predicted.memory.peak <= experiment.machines.memory_gib * 2**30


def test_the_planner_finds_what_trying_everything_finds():
    tiny = Llama(layers=4, hidden=64, heads=4, ffn=64, vocabulary=64)
    experiment = Experiment(
        name="tiny",
        actor=tiny,
        critic=tiny,
        devices=4,
        work=Workload(batch=16, prompt=16, answer=16),
    )
    found = planner.search(experiment)
    best = min(
        predict(make_plan(asked, "given", choice), experiment.machines).times.step
        for asked, choice in everything(experiment, tiny)
    )
    assert found[0].predicted.times.step == pytest.approx(best, rel=1e-12)
    steps = [candidate.predicted.times.step for candidate in found]
    assert steps == sorted(steps)


def everything(experiment: Experiment, tiny: Llama):
    layouts = list(planner.layouts(4, 8, tiny))
    for train in layouts:
        for generate in layouts:
            for micro in (1, 2, 4, 8):
                for decode in (1, 2, 4, 8, 16):
                    if 16 // train.data % micro or 16 // generate.data % decode:
                        continue
                    for schedule in ("merged", "sequential", "fused"):
                        work = msgspec.structs.replace(
                            experiment.work,
                            micro_batch=micro,
                            decode_micro_batch=decode,
                            prefill_micro_batch=min(4, decode),
                        )
                        yield (
                            msgspec.structs.replace(experiment, work=work),
                            Choice(training=train, generation=generate, schedule=schedule),
                        )


def test_the_planner_takes_the_fused_schedule_where_it_is_shorter_and_shows_how_it_is_predicted():
    experiment = named()["phoenix-7b-7b"]
    found = planner.search(experiment)
    best = found[0]
    assert best.plan.choice.schedule == "fused"
    c = experiment.machines.constants
    assert best.predicted.times.training == training_timeline(best.plan, c).seconds
    twin = msgspec.structs.replace(best.plan.choice, schedule="merged")
    merged = predict(msgspec.structs.replace(best.plan, choice=twin), experiment.machines)
    assert best.predicted.times.step < merged.times.step
    with StringIO() as text:
        Console(file=text, width=160).print(show.candidates_table(experiment, found))
        told = text.getvalue()
    assert "fused" in told
    assert "fused by its timeline" in told


def test_tensor_groups_of_any_layout_lie_inside_a_node():
    model = Llama(layers=12, hidden=96, heads=12, ffn=96, vocabulary=96)
    found = {layout.tensor for layout in planner.layouts(12, 4, model)}
    assert found == {1, 2, 4}
    assert {layout.tensor for layout in planner.layouts(6, 8, model)} == {1, 2, 3, 6}
    assert Layout(pipeline=6, data=2) in planner.layouts(12, 4, model)


@pytest.mark.parametrize("name", ["orion-7b-7b", "orion-13b-7b", "orion-33b-7b"])
def test_no_fused_order_is_shorter_than_the_fullest_ranks_passes(name: str):
    experiment = named()[name]
    plan, c = make_plan(experiment, "given"), experiment.machines.constants
    least = least_training(plan.actor, plan.critic, plan.choice.training, plan.work, c)
    assert least <= training_timeline(plan, c, "fused").seconds


def test_fused_memory_counts_what_each_rank_holds_of_either_model():
    actor, critic = known_models()["13b"], known_models()["7b"]
    layout, work = Layout(pipeline=4), Workload(batch=64, micro_batch=2)
    schedule = make_schedule("fused", 4, 32, pass_ratio(actor, critic))
    one = activations(actor, layout, work) / 4, activations(critic, layout, work) / 4
    live = zip(peak_live(schedule, "actor"), peak_live(schedule, "critic"), strict=True)
    real = max(a * one[0] + b * one[1] for a, b in live)
    assert real <= flying(actor, critic, layout, work, fused=True)
    assert flying(actor, critic, layout, work, fused=True) < 2 * flying(actor, critic, layout, work)


def test_what_does_not_fit_is_refused():
    small = msgspec.structs.replace(ORION, memory_gib=8.0, devices=8)
    experiment = Experiment(name="small", cluster=small)
    with pytest.raises(InputError, match="no plan fits into 8 GiB on 8 devices"):
        planner.search(experiment)


def test_a_count_of_devices_that_no_layout_has_is_refused_for_what_it_is():
    """Memory is not the reason: 13 stages are more than 12 layers, 13 replicas do not cut 96."""
    body = Llama(layers=12, hidden=768, heads=12, ffn=2048)
    experiment = Experiment(
        name="odd",
        actor=body,
        critic=body,
        cluster=msgspec.structs.replace(ORION, devices=13),
        work=Workload(batch=96),
    )
    with pytest.raises(InputError, match="no layout of 13 devices can train") as error:
        planner.search(experiment)
    assert "\n" not in str(error.value)
    fits = msgspec.structs.replace(experiment, work=Workload(batch=104))
    assert planner.search(fits)[0].plan.choice.training.data == 13


def test_micro_batches_are_divisors_of_any_batch():
    assert planner.divisors(96, 8) == [1, 2, 3, 4, 6, 8]
    assert planner.divisors(7, 256) == [1, 7]
    body = Llama(layers=12, hidden=768, heads=12, ffn=2048)
    seven = Experiment(
        name="seven", actor=body, critic=body, devices=2, work=Workload(batch=7, answer=64)
    )
    best = planner.search(seven)[0].plan
    assert best.work.decode_micro_batch == 7
    assert best.work.prefill_micro_batch == 1  # the largest up to 4 that divides it
    assert best.choice.training.data == 1


def test_grouped_keys_need_less_cache_and_fewer_products():
    wide = Llama(layers=8, hidden=512, heads=8, ffn=1024)
    grouped = msgspec.structs.replace(wide, kv_heads=2)
    layout, work, c = Layout(tensor=2), Workload(batch=64), ORION.constants
    assert cache(grouped, layout, work) == cache(wide, layout, work) / 4
    assert generation_time(grouped, layout, work, c) < generation_time(wide, layout, work, c)
    both = (training_time(m, m, layout, work, c, merged=True) for m in (grouped, wide))
    assert next(both) < next(both)
    experiment = Experiment(name="grouped", actor=grouped, critic=grouped, devices=8)
    assert max(layout.tensor for layout in planner.layouts(8, 8, grouped)) == 2
    assert planner.search(experiment)[0].plan.actor.kv_heads == 2


def test_a_plan_reads_back_equal(tmp_path):
    plan = make_plan(named()["orion-13b-7b"], "given")
    write(plan, tmp_path / "plan.json")
    assert read(tmp_path / "plan.json") == plan
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="not a valid plan"):
        read(tmp_path / "bad.json")
    with pytest.raises(InputError, match="no such plan file"):
        read(tmp_path / "none.json")


def test_batches_that_do_not_divide_are_refused():
    experiment = msgspec.structs.replace(named()["orion-7b-7b"], work=Workload(batch=10))
    with pytest.raises(InputError, match="does not divide the 10 sequences"):
        make_plan(experiment, "given")
