"""Every part against the original's own values (units.json, golden.json)."""

import pytest

from metis.inputs.profile import ProfileKey, total_ms
from metis.inputs.synth import synthesize
from metis.plan import cost
from metis.plan.balance import split_samples, sub_layer_split
from metis.plan.homogeneous import uniform_layers, uniform_plans
from metis.plan.memory import adjust, demand_and_capacity
from metis.plan.space import (
    device_groups,
    divisors_descending,
    enumerate_layouts,
    group_sizes,
    merge_units,
    multiset_permutations,
)
from metis.plan.stages import StageModel
from metis.plan.walk import Chain, stage_cost
from tests.metis.golden_inputs import POLICY, case_problem, golden, nodes8, units

UNITS = units()
CASES = {case["name"]: case for case in golden()["cases"]} | {"nodes8": nodes8()}


def groups(devices: int, stages: int, variance: float, limit: int) -> list[list[int]]:
    sizes = group_sizes(devices)
    found = device_groups(devices, stages, sizes, variance=variance, max_permute_len=limit)
    return [list(entry) for entry in found]


@pytest.mark.parametrize("entry", UNITS["multiset_permutations"])
def test_permutations_come_in_prefix_shift_order(entry: dict) -> None:
    found = multiset_permutations([(value,) for value in entry["input"]])
    assert [[unit[0] for unit in units_] for units_ in found] == entry["output"]


@pytest.mark.parametrize("entry", UNITS["group_merging"])
def test_units_are_merged_as_the_original_merges(entry: dict) -> None:
    merged = merge_units(tuple(entry["groups"]), entry["max_permute_len"])
    found = [[list(unit) for unit in units_] for units_ in multiset_permutations(merged)]
    assert found == entry["permutations"]


@pytest.mark.parametrize("entry", UNITS["device_groups"])
def test_device_groups_equal_the_original(entry: dict) -> None:
    args = (entry["num_devices"], entry["num_stages"], entry["variance"], entry["max_permute_len"])
    assert groups(*args) == entry["groups"]


@pytest.mark.parametrize("entry", UNITS["device_group_counts"])
def test_device_group_counts_equal_the_original(entry: dict) -> None:
    args = (entry["num_devices"], entry["num_stages"], entry["variance"], entry["max_permute_len"])
    assert len(groups(*args)) == entry["count"]


@pytest.mark.parametrize("entry", UNITS["inter_stage_order"])
def test_layouts_come_in_the_original_order(entry: dict) -> None:
    devices, layers = entry["num_devices"], entry["num_layers"]
    layouts = enumerate_layouts(
        entry["node_types"],
        min(devices, layers),
        lambda stages: device_groups(
            devices,
            stages,
            group_sizes(devices),
            variance=entry["variance"],
            max_permute_len=entry["max_permute_len"],
        ),
        phantom_pass=True,
    )
    found = [
        [list(x.node_sequence), 1 if x.phantom else len(x.groups), list(x.groups), batches]
        for x in layouts
        for batches in divisors_descending(entry["gbs"])
    ]
    assert found == entry["plans"]


@pytest.mark.parametrize("entry", UNITS["layer_balancer"])
def test_layer_balancer_equals_the_original(entry: dict) -> None:
    found = sub_layer_split(entry["stage_capacity"], entry["layer_demand"])
    assert list(found) == entry["partition"]


@pytest.mark.parametrize("entry", UNITS["data_balancer"])
def test_data_balancer_equals_the_original(entry: dict) -> None:
    profiles = case_problem(CASES["mix_8dev_L8"]).profiles
    width = len(entry["device_types"]) // entry["dp"]
    speeds = [
        1 / sum(profiles[ProfileKey(device, entry["tp"], 1)].layer_ms)
        for device in entry["device_types"][::width][: entry["dp"]]
    ]
    assert list(split_samples(speeds, entry["batch"])) == entry["split"]


@pytest.mark.parametrize("entry", UNITS["memory_adjust"])
def test_memory_repair_equals_the_original(entry: dict) -> None:
    found = adjust(entry["stage_compute"], entry["memory_capacity"], entry["memory_demand"])
    if entry["adjusted"] is None:
        assert found is None
    else:
        assert found == pytest.approx(entry["adjusted"], rel=1e-12)


@pytest.mark.parametrize("entry", UNITS["partition_uniform"])
def test_uniform_layers_equal_the_original(entry: dict) -> None:
    assert uniform_layers(entry["layers"], entry["stages"]) == entry["counts"]


def test_constants_come_from_the_first_profile() -> None:
    expected = UNITS["profile_model"]
    problem = case_problem(CASES["mix_8dev_L10_g128"])
    model = StageModel(problem, problem.ranks(("A100", "V100")))
    option = model.option(0, 8, 8, 1, 8)
    assert option is not None
    assert option.optimizer_ms == expected["optimizer_time"]
    assert option.batch_generator_ms == expected["batch_generator"]
    first = problem.profiles[next(iter(problem.profiles))]
    assert list(first.parameters_bytes) == expected["params"]
    assert list(model.layer_demand) == pytest.approx(expected["norm_layer_duration"], rel=1e-15)


@pytest.mark.parametrize("entry", UNITS["cost_breakdown"])
def test_cost_terms_equal_the_original(entry: dict) -> None:
    case = CASES["mix_8dev_L10_g128"] | {"gbs": entry["gbs"]}
    problem = case_problem(case)
    model = StageModel(problem, problem.ranks(tuple(entry["node_sequence"])))
    split, batches, rank = entry["layer_partition"], entry["batches"], 0
    options = []
    for size, (dp, tp) in zip(entry["device_groups"], entry["strategies"], strict=True):
        option = model.option(rank, size, dp, tp, batches)
        assert option is not None
        options.append(option)
        rank += size
    spans = list(zip(options, split, split[1:], strict=False))
    assert [o.time[a, e] for o, a, e in spans] == pytest.approx(entry["stage_execution"], rel=1e-12)
    pairs = [demand_and_capacity(o, a, e, 1) for o, a, e in spans]
    assert [demand for demand, _ in pairs] == pytest.approx(entry["stage_memory_demand"], rel=1e-12)
    assert [capacity for _, capacity in pairs] == entry["stage_memory_capacity"]
    performance = [o.performance for o in options]
    shares = [value / sum(performance) for value in performance]
    assert shares == pytest.approx(entry["stage_compute_performance"], rel=1e-12)
    assert [o.allreduce_bandwidth for o in options] == entry["dp_bandwidth"]
    terms = stage_cost(options, split, problem, batches)
    assert terms.sync == pytest.approx(entry["fb_sync"], rel=1e-12)
    assert terms.batch_generator == pytest.approx(entry["batch_generate"], rel=1e-12)
    assert terms.update == pytest.approx(max(entry["update_costs"]), rel=1e-12)
    assert terms.allreduce == pytest.approx(max(entry["dp_costs"]), rel=1e-12)
    assert terms.send == pytest.approx(sum(entry["pp_costs"]), rel=1e-12)
    assert terms.total == pytest.approx(entry["total"], rel=1e-12)


@pytest.mark.parametrize("entry", UNITS["chain_traces"])
def test_chains_take_the_original_way(entry: dict) -> None:
    problem = case_problem(CASES[entry["cluster_case"]])
    model = StageModel(problem, problem.ranks(tuple(entry["node_sequence"])))
    chain = Chain(model, entry["device_groups"], entry["batches"])
    policy = POLICY["strat" if entry["use_strat"] else "metis"]
    found = list(chain.survivors(policy))
    assert sum(plan.steps for plan in found) == entry["count"]
    assert [
        {
            "strategies": [list(strategy) for strategy in plan.strategies],
            "layer_partition": list(plan.split),
            "num_repartition": plan.attempts,
        }
        for plan in found
    ] == [{key: plan[key] for key in plan if key != "count"} for plan in entry["plans"]]


def test_homogeneous_estimator_equals_the_original() -> None:
    expected = UNITS["homogeneous"]
    case = CASES["homog_a100_4dev"] | {
        "num_layers": 10,
        "gbs": expected["gbs"],
        "hosts": [["A100", 4], ["A100", 4]],
        "profile_gen": [10, 128],
        "max_profiled_tp_degree": expected["max_tp"],
    }
    found = uniform_plans(case_problem(case))
    degrees = [(p.dp, p.pp, p.tp, p.micro_batch) for p in found]
    assert degrees == [(p["dp"], p["pp"], p["tp"], p["mbs"]) for p in expected["plans"]]
    costs = [plan["cost"] for plan in expected["plans"]]
    assert [p.cost_ms for p in found] == pytest.approx(costs, rel=1e-12)


@pytest.mark.parametrize("check", golden()["profile_checks"])
def test_synthetic_profile_equals_the_generator_to_the_bit(check: dict) -> None:
    profiles = synthesize(
        check["layers"],
        max_tp=128,
        max_batch_size=128,
        time_scale={"A100": 1.0, "V100": 3.5},
        memory="flat",
    )
    entry = profiles[ProfileKey(check["type"], check["tp"], check["bs"])]
    first, block, last = check["layer_first_mid_last_ms"]
    assert entry.layer_ms == (first, *(block,) * (check["layers"] - 2), last)
    assert len(entry.memory_mb) == check["n_layer_memory"]
    assert entry.forward_backward_ms == check["forward_backward_time_ms"]
    assert entry.optimizer_ms == check["optimizer_time_ms"]
    assert entry.batch_generator_ms == check["batch_generator_time_ms"]
    assert entry.layernorm_allreduce_ms == check["layernorm_grads_all_reduce_time_ms"]
    assert entry.embedding_allreduce_ms == check["embedding_grads_all_reduce_time_ms"]
    assert entry.sync_ms == check["fb_sync"]
    assert total_ms(entry) == check["total_time_ms"]
    assert sum(entry.memory_mb) == check["total_memory"]
    assert sum(entry.parameters_bytes) == check["total_parameters_bytes"]


def test_an_empty_first_stage_has_negative_blocks_as_in_the_original() -> None:
    parameters = (300.0, 100.0, 100.0, 400.0)
    assert cost.original_parameters(parameters, tp=2, first=0, end=0) == (300 - 100) / 2
