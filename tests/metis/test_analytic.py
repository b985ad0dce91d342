"""The analytic profile: what it must follow, and how far it is from published training runs."""

import csv
import random
from functools import cache
from pathlib import Path
from statistics import mean

import msgspec
import pytest

from common.devices import find
from common.errors import InputError
from metis.inputs.analytic import Efficiency, Layers, Machine, analytic
from metis.inputs.cluster import NodeGroup
from metis.inputs.experiment import ClusterSource, Experiment, ProfileSource, SearchSettings
from metis.inputs.model import Model
from metis.inputs.profile import LayerProfile, ProfileKey
from metis.plan.cost import send_ms
from metis.plan.methods import make_problem

GPT = {"layers": 26, "hidden_size": 4096, "vocabulary": 51200, "heads": 32}
A100 = Machine(find("A100"), 300.0)


def profile(machine: Machine = A100, tp: int = 1, bs: int = 1, **sizes: object) -> LayerProfile:
    """One profile of a GPT with some sizes changed, or of a config."""
    model = Model(**(sizes if "config" in sizes else GPT | sizes)).resolved()
    found = analytic(model, {"X": machine}, max_tp=8, max_batch_size=8)
    return found[ProfileKey("X", tp, bs)]


def question(device: str, source: str = "synthetic", **sizes: object) -> Experiment:
    """A search on 8 devices."""
    return Experiment(
        name="own",
        model=Model(**GPT | {"global_batch": 64} | sizes),
        cluster=ClusterSource(nodes=(NodeGroup(device=device, devices=8),)),
        profile=ProfileSource(source=source),
        search=SearchSettings(method="wider"),
    )


def test_a_layer_is_bound_by_its_arithmetic_as_reckoned_by_hand() -> None:
    """A GPT's block: 24 h^2 + 2 h s FLOP a token and direction (causal), 3 passes."""
    h, s = 4096, 1024
    free = Efficiency(compute=0.5, attention=0.5, memory=1.0)
    endless = Machine(find("A100"), 300.0)
    layers = Layers(Model(**GPT), endless, "float16", free)
    rest_ms = 1e3 * 2 * s * (10 * h + 2 * 4 * h) / 2039e9
    flop = s * (24 * h * h + 4 * h * s // 2)
    assert layers.forward_ms(0, s, 1) - rest_ms == pytest.approx(1e3 * flop / 156e12, rel=2e-3)


def test_states_take_18_bytes_a_parameter_and_activations_8_h_and_24_h_over_t() -> None:
    """Korthikanti et al., section 4: sbh (10 + 24 / t) less 2 sbh of dropout masks."""
    h, s, mb = 4096, 1024, 2**20
    for tp in (1, 4):
        one, two = profile(tp=tp, bs=1), profile(tp=tp, bs=2)
        kept = (two.memory_mb[1] - one.memory_mb[1]) * mb
        assert kept == pytest.approx(s * h * (8 + 24 / tp))
        parameters = 12 * h * h + 13 * h
        assert one.memory_mb[1] * mb - kept == pytest.approx(18 * parameters / tp)


def test_float32_takes_16_bytes_a_parameter() -> None:
    model = Model(**GPT)
    tight = analytic(model, {"X": A100}, max_tp=1, max_batch_size=2, dtype="float32")
    one, two = (tight[ProfileKey("X", 1, bs)].memory_mb[0] for bs in (1, 2))
    assert one == two == pytest.approx(16 * (51200 + 1024) * 4096 / 2**20)


def test_parameters_are_those_of_the_config_to_the_last_one() -> None:
    sizes = profile(config="Llama-3-8B").parameters_bytes
    assert len(sizes) == 34
    assert sum(sizes) / 4 == 8_030_261_248


def test_the_head_follows_the_vocabulary_and_blocks_follow_the_width() -> None:
    usual, wordy, narrow = profile(), profile(vocabulary=256000), profile(hidden_size=512, heads=8)
    assert wordy.layer_ms[-1] == pytest.approx(5 * usual.layer_ms[-1], rel=0.01)
    assert wordy.layer_ms[1] == usual.layer_ms[1]
    assert narrow.layer_ms[1] < usual.layer_ms[1] / 8


def test_a_slow_link_makes_tensor_groups_slower_and_single_devices_not() -> None:
    slow = Machine(A100.device, 30.0)
    assert profile(slow).layer_ms == profile().layer_ms
    waits = profile(slow, tp=4).layer_ms[1] - profile(tp=4).layer_ms[1]
    size = 1024 * 4096 * 2
    assert waits == pytest.approx(4 * 2 * 3 / 4 * size / 0.7 * (1 / 30e6 - 1 / 300e6))


def test_an_update_is_adams_30_bytes_a_parameter_over_the_memory_bandwidth() -> None:
    entry = profile(config="Llama-3-8B")
    assert entry.optimizer_ms == pytest.approx(1e3 * 30 * 8_030_261_248 / (0.34 * 2039e9))


def test_degrees_that_do_not_divide_the_heads_have_no_profile() -> None:
    xl = Model(layers=50, hidden_size=1600, heads=25, vocabulary=50257)
    assert analytic(xl, {"X": A100}, max_tp=8, max_batch_size=1).degrees("X") == [1, 5]


@pytest.mark.parametrize("device", ["h100", "H100-SXM", "RTX 4090", "T4", "MI300X", "p100"])
def test_any_device_of_the_sheets_can_be_planned_for(device: str) -> None:
    asked = question(device, "analytic")
    cluster = asked.load_cluster()
    assert cluster.machines()[0].memory_mb == pytest.approx(find(device).memory_gb * 1e9 / 2**20)
    assert asked.load_profiles(cluster).device_types() == [device]


@pytest.mark.parametrize(
    ("changes", "origin"),
    [
        ({}, "synthetic profile"),
        ({"vocabulary": 256000}, "analytic profile"),
        ({"hidden_size": 512, "heads": 8}, "analytic profile"),
        ({"sequence_length": 4096}, "analytic profile"),
    ],
)
def test_the_synthetic_profile_answers_for_the_one_model_only(changes: dict, origin: str) -> None:
    for source in ("auto", "synthetic"):
        asked = question("A100", source, **changes)
        assert asked.load_profiles(asked.load_cluster()).origin == origin


def test_a_share_above_1_and_a_device_without_sheet_are_one_sentence() -> None:
    with pytest.raises(InputError, match=r"profile.efficiency.compute is 1.5, expected above 0"):
        Efficiency(compute=1.5)
    node = NodeGroup(
        device="H900", devices=8, memory_gb=80, intra_bandwidth=9.0, inter_bandwidth=9.0
    )
    asked = Experiment(name="own", model=Model(layers=9), cluster=ClusterSource(nodes=(node,)))
    with pytest.raises(InputError, match="the analytic profile knows no 'H900'"):
        asked.load_profiles(asked.load_cluster())
    with pytest.raises(InputError, match="no such peak"):
        analytic(
            Model(**GPT),
            {"X": Machine(find("V100"), 150.0)},
            max_tp=1,
            max_batch_size=1,
            dtype="bfloat16",
        )


@cache
def runs() -> list[dict[str, str]]:
    """Published runs of dense GPTs in 16 bits, in an order drawn with seed 0."""
    with Path(__file__).with_name("published_runs.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["run"])
    random.Random(0).shuffle(rows)
    return rows


def measured_s(run: dict[str, str]) -> float:
    """Seconds an iteration: by tokens a second, or by the sources' FLOP (SC'21, equation 3)."""
    layers, hidden, seq, vocabulary, batch, gpus = (
        int(run[name]) for name in ("layers", "hidden", "seq", "vocab", "global_batch", "gpus")
    )
    if run["tokens_per_s_per_gpu"]:
        return batch * seq / gpus / float(run["tokens_per_s_per_gpu"])
    flop = 72 * batch * seq * layers * hidden**2
    flop *= 1 + seq / (6 * hidden) + vocabulary / (12 * layers * hidden)
    if run["hfu_tflops_per_gpu"]:
        return flop * 4 / 3 / (float(run["hfu_tflops_per_gpu"]) * 1e12 * gpus)
    return flop / (float(run["tflops_per_gpu"]) * 1e12 * gpus)


def predicted_s(run: dict[str, str]) -> float:
    """Equal stages under 1F1B, with the run's own recompute and interleaving."""
    layers, hidden, heads, seq, vocabulary, tp, pp, dp, batch = (
        int(run[name])
        for name in "layers hidden heads seq vocab tp pp dp global_batch".split()  # noqa: SIM905
    )
    model = Model(
        layers=layers + 2,
        hidden_size=hidden,
        heads=heads,
        vocabulary=vocabulary,
        sequence_length=seq,
    )
    device, micro = find(run["device"]), int(run["micro_batch"] or 1)
    found = Layers(model, Machine(device, device.link_gb_per_s or 0), "float16", Efficiency())
    tokens, reduce = micro * seq, found.allreduce_ms(micro * seq, tp)
    again = run["recompute"] == "full"
    block = (3 + again) * found.forward_ms(0, tokens, tp) + (4 + 2 * again) * reduce
    ends = 3 * (found.head_ms(tokens, tp) + found.embedding_ms(tokens)) + reduce
    stage, chunks = (block * layers + ends) / pp, 2 if "interleaved" in run["schedule"] else 1
    sharded = dp if run["sharding"].startswith(("FSDP", "ZeRO")) else 1
    update = found.optimizer_ms() / tp / pp / sharded
    return ((batch / dp / micro + (pp - 1) / chunks) * stage + update) / 1e3


def test_published_runs_that_nothing_was_fitted_to_are_met_within_15_percent() -> None:
    """The defaults of Efficiency are fitted to the first half of the runs."""
    left_out = runs()[len(runs()) // 2 :]
    errors = {row["run"]: abs(predicted_s(row) / measured_s(row) - 1) for row in left_out}
    assert len(errors) == 44
    assert mean(errors.values()) < 0.15
    assert max(errors.values()) < 0.5


def test_a_gb_per_s_is_1e9_bytes_a_second_but_in_the_papers_experiments() -> None:
    rates = {"intra_bandwidth": 300.0, "inter_bandwidth": 10.0}
    node = NodeGroup(device="A100", devices=8, memory_gb=80, **rates)
    for source, bytes_per_s in (("analytic", 1e9), ("synthetic", 2**20 * 1e3)):
        asked = question("A100", source)
        asked = msgspec.structs.replace(asked, cluster=ClusterSource(nodes=(node,)))
        cluster = asked.load_cluster()
        problem = make_problem(asked, cluster, asked.load_profiles(cluster))
        found = problem.cluster.machines()[0]
        for name, rate in rates.items():
            taken_s = send_ms(1e9, bandwidth=getattr(found, name)) / 1e3
            assert taken_s == pytest.approx(1e9 / (bytes_per_s * rate))
