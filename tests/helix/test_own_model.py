"""A model by its config and machines by the device sheet."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import helix
from common.devices import find
from common.errors import InputError
from common.model import read
from helix.inputs.cluster_source import ClusterSource, MachineGroup
from helix.inputs.experiment import ROOFLINE, Experiment, KindSource, ProfileSource
from helix.inputs.layer import CONTEXT, Layer
from helix.inputs.model_source import ModelSource
from helix.inputs.roofline import Efficiency, Gpu, gpu_of, limits_of, roofline
from helix.inputs.search import SearchSettings
from helix.plan.answer import summary_of
from helix.plan.throughput import throughput

SMALL = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "vocab_size": 1000}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 8}
SMALL |= {"torch_dtype": "bfloat16", "tie_word_embeddings": False}


def layer(config: Any, **stored: Any) -> Layer:
    found = ModelSource(config=config, **stored).layer()
    assert found is not None
    return found


def service(model: ModelSource, machines: dict[str, int], **profile: Any) -> Experiment:
    return Experiment(
        name="own",
        model=model,
        cluster=ClusterSource(
            machines=tuple(MachineGroup(kind=k, count=n) for k, n in machines.items())
        ),
        profile=ProfileSource(source=ROOFLINE, **profile),
        search=SearchSettings(objective="flow", chains=1, evaluations=500),
    )


def test_a_layer_of_qwen3_32b_has_the_bytes_of_its_architecture() -> None:
    found = layer("Qwen3-32B")
    assert found.layers == 64
    assert found.held_bytes == found.read_bytes(1) == 975_196_672
    assert found.kv_bytes == 2 * 8 * 128 * 2
    assert found.hop_bytes == 2 * 5120
    assert found.embedding_bytes == 2 * 151_936 * 5120
    assert found.linear_flop == 2 * (found.held_bytes / 2 - 2 * 5120 - 2 * 128)


def test_the_same_model_comes_of_a_folder_a_file_a_table_and_a_name(tmp_path: Path) -> None:
    words = {"model_type": "qwen3", "num_hidden_layers": 64, "hidden_size": 5120}
    words |= {"intermediate_size": 25600, "num_attention_heads": 64, "num_key_value_heads": 8}
    words |= {"torch_dtype": "bfloat16", "max_position_embeddings": 40960}
    (tmp_path / "config.json").write_text(json.dumps(words))
    named = layer("Qwen3-32B")
    assert layer(str(tmp_path)) == layer(str(tmp_path / "config.json")) == layer(words) == named


def test_a_toml_may_write_the_words_inline_and_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(
        'name = "own"\n[model]\nkv_dtype = "fp8"\n[model.config]\nmodel_type = "llama"\n'
        "num_hidden_layers = 8\nhidden_size = 64\nnum_attention_heads = 4\nvocab_size = 1000\n"
        'intermediate_size = 128\n[[cluster.machines]]\nkind = "L4"\n[profile]\nsource = "roofline"'
    )
    experiment = helix.load(path)
    assert experiment.model.architecture().kv_dtype == "fp8"
    assert msgspec.convert(msgspec.to_builtins(experiment), Experiment) == experiment


def test_four_bit_weights_keep_a_cache_of_sixteen_bits() -> None:
    plain, packed = layer("Qwen3-32B"), layer("Qwen3-32B", quantization="awq")
    assert 0.25 < packed.held_bytes / plain.held_bytes < 0.27
    assert packed.kv_bytes == plain.kv_bytes
    assert layer("Qwen3-32B", kv_dtype="fp8").kv_bytes == plain.kv_bytes / 2
    assert layer("Qwen3-32B", kv_dtype="fp8").held_bytes == plain.held_bytes


def test_all_experts_are_in_memory_and_those_that_tokens_choose_are_read() -> None:
    model, found = read("Qwen3-30B-A3B"), layer("Qwen3-30B-A3B")
    assert found.held_bytes == model.weight_bytes().layers[0]
    active = (model.active_parameters() - 2 * model.parameters().embedding) / model.layers * 2
    assert found.read_bytes(1) == pytest.approx(active, rel=1e-4)  # the final norm apart
    assert found.linear_flop == model.linear_flop().layers[0]
    assert found.read_bytes(10_000) == pytest.approx(found.held_bytes)
    # Two tokens choose 8 of 128 each: 8 + 8 x 120 / 128 different ones on average.
    one, two = (found.read_bytes(n) - found.dense_bytes for n in (1, 2))
    assert two / one == pytest.approx((8 + 8 * 120 / 128) / 8)


@given(tokens=st.integers(1, 4096))
def test_more_tokens_never_read_fewer_weights(tokens: int) -> None:
    found = layer("Qwen3-30B-A3B")
    assert found.read_bytes(tokens) <= found.read_bytes(tokens + 1) <= found.held_bytes * (1 + 1e-9)


def test_layers_that_differ_are_counted_as_the_largest_and_it_is_said() -> None:
    model, found = read("DeepSeek-V3"), layer("DeepSeek-V3")
    assert found.held_bytes == max(model.weight_bytes().layers)
    assert found.read_bytes(10**6) * 61 == pytest.approx(sum(model.weight_bytes().layers))
    assert any("layers differ in size" in note for note in found.notes)
    assert any("sliding window" in note for note in layer("gpt-oss-20b").notes)


def test_embedding_and_head_take_memory_where_the_first_and_the_last_layer_are() -> None:
    memory, found = 80e9, layer("Qwen3-32B")
    limits = limits_of(found, memory, 0.9)
    for held in (1, 63, 64):
        ends = found.embedding_bytes if held < 64 else found.embedding_bytes + found.head_bytes
        left = 0.9 * memory - held * found.held_bytes - max(ends, found.head_bytes)
        assert limits[held - 1].kv_entries == int(left / (held * 4096)) // 16 * 16 * held
    plan = helix.plan(service(ModelSource(config="Qwen3-32B"), {"L40S": 2}))
    first, last = sorted(plan.held, key=lambda one: plan.services[0].intervals[one.machine])
    total = read("Qwen3-32B").weight_bytes().total
    assert first.weights + last.weights == total
    assert f"weights {total / 1e9:.2f} of 96 GB" in summary_of(plan)


def test_a_tied_head_is_held_once_by_a_machine_with_all_layers_and_twice_by_two() -> None:
    model = ModelSource(config="Qwen3-0.6B").load()
    embedding = read("Qwen3-0.6B").weight_bytes().embedding
    whole = model.held_bytes(0, 28)
    assert whole == read("Qwen3-0.6B").weight_bytes().total
    halves = model.held_bytes(0, 14) + model.held_bytes(14, 28)
    assert halves - whole == embedding


@given(gb=st.floats(1, 640), usable=st.floats(0.2, 1))
def test_weights_and_cache_never_take_more_than_the_usable_memory(gb: float, usable: float) -> None:
    found = layer(SMALL | {"hidden_size": 4096, "intermediate_size": 14336})
    for held, limits in enumerate(limits_of(found, gb * 1e9, usable), 1):
        taken = held * found.held_bytes + found.end_bytes(held)
        assert taken + limits.kv_entries * found.kv_bytes <= usable * gb * 1e9
        assert limits.kv_entries // held >= 2048 // 16 * 16


def test_a_smaller_fraction_of_memory_leaves_fewer_tokens() -> None:
    model = ModelSource(config="Llama-3-8B")
    most, fewer = (
        helix.plan(service(model, {"L4": 1}, memory_fraction=share)).kv_tokens
        for share in (0.9, 0.8)
    )
    assert most - fewer == pytest.approx(0.1 * 24e9 / (32 * 4096), abs=16)


def test_a_layer_takes_the_longer_of_its_arithmetic_and_its_memory() -> None:
    found, gpu = layer("Llama-3-8B"), Gpu(memory_gb=80, memory_gb_per_s=2000, tflops=300)
    profile = roofline(found, gpu, 1, Efficiency(memory=0.5, compute=0.25))
    moved = found.held_bytes + 2 * CONTEXT * 4096
    assert profile.decode(2) == pytest.approx(moved / (0.5 * 2000e9))
    work = 2048 * (found.linear_flop + CONTEXT / 2 * found.attention_flop)
    assert profile.prompt(2048) == pytest.approx(work / (0.25 * 300e12))


def test_a_peak_that_a_device_has_not_is_that_of_its_other_16_bit_type() -> None:
    assert gpu_of(find("T4"), "bf16").tflops == 65
    assert gpu_of(find("H100"), "fp8").tflops == find("H100").tflops["fp8"]
    assert gpu_of(find("A100"), "fp8").tflops == 312


def test_unknown_machines_and_models_are_refused_with_the_nearest_names() -> None:
    with pytest.raises(InputError, match=r"profile\.kinds\.H10O\.gpu: .*did you mean H100"):
        helix.plan(service(ModelSource(config="Llama-3-8B"), {"H10O": 1}))
    with pytest.raises(InputError, match="did you mean Qwen3-32B"):
        helix.plan(service(ModelSource(config="Qwen3-33B"), {"H100": 1}))
    with pytest.raises(InputError, match="bert is an encoder"):
        helix.plan(service(ModelSource(config="BERT-base-uncased"), {"H100": 1}))


def test_a_device_of_ones_own_stands_in_place_of_the_name() -> None:
    mine = find("L4")
    own = msgspec.to_builtins(msgspec.structs.replace(mine, name="mine", memory_gb=48))
    model = ModelSource(config="Llama-3-8B")
    plan = helix.plan(service(model, {"mine": 1}, kinds={"mine": KindSource(gpu=own)}))
    assert plan.held[0].memory == 48e9
    with pytest.raises(InputError, match=r"kinds\.mine\.gpu: Object missing required field"):
        helix.plan(service(model, {"mine": 1}, kinds={"mine": KindSource(gpu={"name": "mine"})}))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"config": "Llama-3-8B", "layers": 3}, "leave out model.layers"),
        ({"name": "llama2_70b", "dtype": "fp16"}, "which needs model.config"),
        ({"name": "mine"}, "or give model.config, or model.layers"),
    ],
)
def test_two_models_in_one_are_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ModelSource(**words)


def test_a_machine_with_a_small_share_of_the_work_has_a_rate_all_the_same() -> None:
    found = layer("Llama-3.1-70B")
    tight = roofline(found, Gpu(memory_gb=4.5, memory_gb_per_s=300, tflops=60))
    wide = roofline(found, gpu_of(find("H100"), "bf16"))
    model = ModelSource(config="Llama-3.1-70B").load()
    speed = throughput(model, {"tight": tight, "wide": wide}, {"tight": 1, "wide": 8})
    assert min(speed.rates("tight")) > 0


def test_my_llama_is_planned_with_its_origin_and_its_cache() -> None:
    experiment = helix.load("my-llama", "search.objective=flow", "search.evaluations=500")
    plan = helix.plan(experiment)
    assert "analytic profile" in summary_of(plan)
    assert f"KV cache of {plan.kv_tokens:,} tokens" in summary_of(plan)
    assert sum(end - first for first, end in plan.services[0].intervals) >= 80
