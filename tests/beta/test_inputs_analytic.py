"""Models by config.json and devices by data sheet: profiles that are computed, and say so."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta.inputs.analytic import (
    ATTENTION,
    BYTES,
    COMPUTE,
    LAUNCH_S,
    MEMORY,
    PASSES,
    Task,
    analytic_profile,
)  # fmt: skip
from beta.inputs.examples import my_llama, small
from beta.inputs.experiment import ClusterSettings, ModelSettings
from beta.inputs.load import load
from beta.inputs.profile import SINGLE, Config
from beta.plan.answer import question
from common.devices import find
from common.errors import InputError
from common.model import read

LLAMA, H100 = read("Llama-3.1-8B"), find("H100")
NAMES = ["Llama-3.1-8B", "Qwen3-30B-A3B", "BERT-large-uncased"]


def test_weights_are_the_models_to_the_byte_however_it_is_split():
    profile = analytic_profile("m", Task(LLAMA, H100, 512))
    total = LLAMA.weight_bytes().total
    for config, record in profile.records.items():
        assert record.weight_bytes is not None
        assert sum(record.weight_bytes) * config.op == pytest.approx(total, rel=1e-12)


def test_a_layer_takes_the_longer_of_computing_and_reading():
    peak, bandwidth = COMPUTE * H100.flops("bf16"), MEMORY * 1e9 * H100.memory_gb_per_s
    layer, weights = LLAMA.linear_flop().layers[0], LLAMA.weight_bytes()
    long = analytic_profile("m", Task(LLAMA, H100, 4096)).records[SINGLE].stage_s[1][0]
    attention = 4096 * LLAMA.attention_flop(2048)[0] / (ATTENTION * H100.flops("bf16"))
    head, vector = weights.head / bandwidth, PASSES * LLAMA.hidden * BYTES / bandwidth
    assert long == pytest.approx(
        LLAMA.layers * (4096 * (layer / peak + vector) + attention + LAUNCH_S) + head, rel=1e-3
    )
    short = analytic_profile("m", Task(LLAMA, H100, 1)).records[SINGLE].stage_s[1][0]
    read_s = weights.layers[0] / bandwidth
    assert short == pytest.approx(LLAMA.layers * (read_s + vector + LAUNCH_S) + head, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "device", "tokens", "layer_s"),
    [  # the linear parts of a layer, measured by vidur's authors (data/profiling, MIT licence)
        ("Llama-2-70B", "A100", 4096, 30.8895e-3),
        ("Llama-3-8B", "A100", 512, 1.089e-3),
        ("Llama-2-7B", "H100", 2048, 1.278e-3),
        ("Llama-2-7B", "A40", 1024, 4.321e-3),
    ],
)
def test_a_layer_takes_what_was_measured(name: str, device: str, tokens: int, layer_s: float):
    model, sheet = read(name), find(device)
    (whole,) = analytic_profile(name, Task(model, sheet, tokens)).records[SINGLE].stage_s[1]
    head = model.weight_bytes().head / (MEMORY * 1e9 * sheet.memory_gb_per_s)
    attention = tokens * model.attention_flop(tokens // 2)[0] / (ATTENTION * sheet.flops("bf16"))
    assert (whole - head) / model.layers - attention == pytest.approx(layer_s, rel=0.15)


@settings(max_examples=15)
@given(
    st.sampled_from(["Llama-3.1-8B", "Qwen3-30B-A3B", "BERT-large-uncased"]), st.integers(1, 512)
)
def test_more_devices_make_an_answer_faster_and_batches_a_request_cheaper(name: str, tokens: int):
    profile = analytic_profile(name, Task(read(name), H100, tokens))
    for config, record in profile.records.items():
        latency = {batch: sum(stages) for batch, stages in record.stage_s.items()}
        assert len(record.stage_s[1]) == config.pp
        each = [latency[batch] / batch for batch in sorted(latency)]
        # An expert model reads more experts for more tokens, so only dense ones always gain.
        if "A3B" not in name:
            assert each == sorted(each, reverse=True)
        wider = profile.records.get(Config(2 * config.op, config.pp))
        if wider is not None and tokens > 256:
            assert max(wider.weight_bytes or ()) < max(record.weight_bytes or ())


def test_an_expert_model_reads_only_the_experts_that_its_tokens_use():
    profile = analytic_profile("moe", Task(read("Qwen3-30B-A3B"), H100, 1))
    one, sixteen = (sum(profile.records[SINGLE].stage_s[batch]) for batch in (1, 16))
    assert 4 < sixteen / one < 16


def test_an_experiment_takes_a_config_and_a_device(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    words = {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 4,
             "num_attention_heads": 8, "intermediate_size": 1024, "vocab_size": 1000}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(words))
    model = ModelSettings(config=str(folder), count=2, slo_s=0.5, rate=2.0, sequence=128)
    experiment = msgspec.structs.replace(my_llama(), models=(model,))
    loaded = load(experiment)
    assert [m.name for m in loaded.models] == ["mine-0", "mine-1"]
    assert "simulated (analytic profile)" in loaded.notes[0]
    assert "one pass over 128 tokens, no decoding, on H100" in loaded.notes[0]
    assert experiment.cluster.budget_gib == pytest.approx(0.9 * 80e9 / 2**30)
    asked = question(experiment, 0)
    (folder / "config.json").write_text(json.dumps({**words, "num_hidden_layers": 6}))
    assert question(experiment, 0) != asked  # another model behind the same path
    fixed = msgspec.structs.replace(experiment.cluster, memory_gib=10.0)
    assert fixed.cluster().memory_bytes == 10 * 2**30


def test_the_papers_models_may_be_asked_of_another_device_and_measured_ones_stay_as_they_are():
    device = msgspec.structs.replace(small().cluster, device="A100")
    there, here = load(msgspec.structs.replace(small(), cluster=device)), load(small())
    assert all("on A100" in note for note in there.notes)
    assert not here.notes
    measured, computed = here.models[0].profile, there.models[0].profile
    assert computed.single_s < measured.single_s
    assert computed.memory_bytes(SINGLE) == pytest.approx(measured.memory_bytes(SINGLE), rel=0.1)


def test_a_model_that_nobody_profiled_is_planned_by_its_sizes_and_says_that_it_knows_no_tokens():
    model = ModelSettings(types=("llama-7b",), count=2, slo_s=2.0, rate=1.0)
    experiment = msgspec.structs.replace(small(), models=(model,))
    loaded = load(experiment)
    assert [m.name for m in loaded.models] == ["llama-7b-0", "llama-7b-1"]
    assert "no decoding, on V100" in loaded.notes[0]
    weights = loaded.models[0].profile.memory_bytes(SINGLE)
    assert weights == read("Llama-2-7B").weight_bytes().total


@pytest.mark.parametrize(
    ("cluster", "model", "message"),
    [
        ({"device": "H1000"}, {"config": "Llama-3.1-8B"}, "H1000"),
        ({"device": "H100"}, {"config": "Llama-31-8B-x"}, "Llama-31-8B-x"),
        ({}, {"types": ("a",), "config": "Llama-3.1-8B"}, "a config in their place"),
        ({}, {}, "one or more types, or a config"),
    ],
)
def test_models_and_devices_that_are_not_known_are_told(cluster, model, message: str):
    with pytest.raises(InputError, match=message):
        load(
            msgspec.structs.replace(
                my_llama(),
                cluster=ClusterSettings(devices=8, **cluster),
                models=(ModelSettings(rate=1.0, slo_s=1.0, **model),),
            )
        )


def test_a_config_needs_a_device_where_the_profile_is_ones_own(tmp_path: Path):
    (tmp_path / "p.csv").write_text(
        "model,op,pp,batch,stage,latency_s,weight_bytes\na,1,1,1,0,0.1,1\n"
    )
    experiment = msgspec.structs.replace(
        my_llama(), profile=str(tmp_path / "p.csv"), cluster=ClusterSettings(devices=8)
    )
    with pytest.raises(InputError, match=r"give cluster\.device"):
        load(experiment)
