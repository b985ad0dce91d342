"""Models of config.json files and devices of data sheets, in plan and simulation."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.architecture import sheet
from common.artifact import with_field
from common.errors import InputError
from common.model import read
from vocab_parallel.inputs.device import from_sheet
from vocab_parallel.inputs.examples import examples
from vocab_parallel.inputs.experiment import Experiment, Pipeline, Training
from vocab_parallel.inputs.family import _FAMILIES, from_config
from vocab_parallel.inputs.load import loaded
from vocab_parallel.inputs.machine import known_machines
from vocab_parallel.inputs.model import (
    Model,
    layer_forward_flops,
    layer_parameters,
    norm_parameters,
)
from vocab_parallel.plan.methods import METHODS
from vocab_parallel.plan.plans import make_plan, parameters
from vocab_parallel.simulate.memory import allocated
from vocab_parallel.simulate.predict import predict


def named_models() -> list[str]:
    known = sheet("catalogue")
    kinds = {name: row["config"].get("model_type") for name, row in known.items()}
    return [name for name, kind in kinds.items() if kind in (*_FAMILIES, "gemma3")]


@pytest.mark.parametrize("name", named_models())
def test_parameters_and_work_are_those_of_the_architecture(name: str) -> None:
    known, ours = read(name), from_config(Model(config=name, sequence=1024))
    counted = known.parameters()
    assert [layer_parameters(ours)] * known.layers == list(counted.layers)
    assert norm_parameters(ours) == counted.final
    linear, attention = known.linear_flop().layers, known.attention_flop(1024)
    for layer in (0, known.layers - 1):
        each = 1024 * (linear[layer] + attention[layer])
        assert layer_forward_flops(ours, layer) == each
    if known.layers % 2 == 0:
        for method in ("baseline", "vocab-1"):
            experiment = Experiment(name="x", model=ours, pipeline=Pipeline(ranks=2, batches=2))
            plan = make_plan(experiment, method)
            held = sum(parameters(plan, rank) for rank in range(2))
            copied = counted.embedding * (known.tied and method == "baseline")
            learned = (known.context - 1024) * known.hidden * (ours.positions == "learned")
            assert held == counted.total + copied - learned


def test_the_papers_gpt_is_the_default() -> None:
    h, s = 3072, 2048
    assert layer_parameters(Model()) == 12 * h * h + 13 * h
    assert layer_forward_flops(Model()) == s * (24 * h * h + 4 * s * h)


def asked(**fields: Any) -> Experiment:
    base = {"name": "mine", "pipeline": Pipeline(ranks=8, batches=16)}
    return loaded(Experiment(**(base | fields)))


def test_gemma_3_12b_is_planned_on_8_h100_in_two_words() -> None:
    found = asked(model=Model(config="Gemma-3-12B-it", sequence=4096), device="H100")
    model = found.model
    assert (model.layers, model.hidden, model.head, model.groups) == (48, 3840, 256, 8)
    assert (model.vocabulary, model.tied, model.norms, model.qk_norm) == (262208, True, 4, True)
    assert [model.window(layer) for layer in range(6)] == [1024] * 5 + [4096]
    assert found.rank_machine.peak_tflops == pytest.approx(989, rel=0.01)
    for method in METHODS:
        plan = make_plan(found, method)
        prediction = predict(plan)
        assert 0 < prediction.mfu < 0.6
        assert max(prediction.busy) <= 1


def test_layers_with_windows_take_less_time_than_those_without() -> None:
    found = asked(model=Model(config="Gemma-3-12B-it", sequence=32768))
    plan = make_plan(found, "vocab-1")
    whole = with_field(found, "model.windows", ())
    assert predict(plan).iteration_s < 0.9 * predict(make_plan(whole, "vocab-1")).iteration_s


def test_grouped_heads_and_gated_layers_keep_what_they_compute() -> None:
    plain = Model(layers=8, hidden=1024, heads=16, vocabulary=1000)
    kept = {
        name: allocated(make_plan(asked(model=model), "baseline"))[0]
        for name, model in {
            "plain": plain,
            "grouped": with_field(asked(model=plain), "model.kv_heads", 2).model,
            "gated": with_field(asked(model=plain), "model.gated", True).model,
        }.items()
    }
    assert kept["grouped"] < kept["plain"] < kept["gated"]


@pytest.mark.parametrize(
    "beside", [{"layers": 4}, {"vocabulary": 256000}, {"tied": False}, {"gated": True}]
)
def test_sizes_beside_a_config_are_refused(beside: dict[str, Any]) -> None:
    (field,) = beside
    with pytest.raises(InputError, match=rf"model\.{field} is given beside model\.config"):
        from_config(Model(config="Llama-3-8B", **beside))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": Model(config="DeepSeek-V3")}, "deepseek_v3 has layers that are not built here"),
        ({"model": Model(config="Llama-9-8B")}, "model.config: model 'Llama-9-8B' is not known"),
        ({"model": Model(config="GPT-2", sequence=2048)}, "positions for 1024"),
        (
            {"model": Model(config="GPT-2", sequence=8), "training": Training(weights="x")},
            "training.weights needs model.config",
        ),
        ({"device": "H9000"}, "device 'H9000' is not known"),
        ({"model": Model(config="GPT-2"), "megatron": "x.sh"}, "both say the model"),
        (
            {"device": "H100", "constants": known_machines()["a100-paper"]},
            "both say the machine",
        ),
    ],
)
def test_what_is_not_built_or_said_twice_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        asked(**fields)


def test_a_packed_models_training_is_refused(tmp_path: Path) -> None:
    words = dict(sheet("catalogue")["Llama-3-8B"]["config"])
    words["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 128}
    (tmp_path / "config.json").write_text(json.dumps(words))
    with pytest.raises(InputError, match="weights packed by awq are not trained"):
        asked(model=Model(config=str(tmp_path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 7}, "does not divide model.hidden"),
        ({"kv_heads": 5}, "model.kv_heads is 5, which does not divide model.heads 24"),
        ({"windows": (1, 2)}, "model.windows has 2 entries, expected 32"),
        ({"logit_softcap": -1.0}, "model.logit_softcap is -1.0, expected 0 or more"),
    ],
)
def test_sizes_of_no_model_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Model(**change)


def test_an_a100_by_its_sheet_is_the_papers_a100() -> None:
    sheet_, paper = from_sheet("A100"), known_machines()["a100-paper"]
    assert sheet_.layer_tflops == pytest.approx(paper.layer_tflops)
    assert sheet_.output_tflops == pytest.approx(paper.output_tflops)
    assert (sheet_.memory_gib, sheet_.peak_tflops) == (80, 312)


def test_faster_devices_are_faster_and_less_efficient_where_memory_lags() -> None:
    base = examples()["multilingual-8"]
    seconds, used = [], []
    for name in ("V100", "A100", "H100", "B200"):
        if name == "V100":
            with pytest.raises(InputError, match="bf16"):
                from_sheet(name)
            continue
        found = loaded(with_field(base, "device", name))
        prediction = predict(make_plan(found, "vocab-1"))
        seconds.append(prediction.iteration_s)
        used.append(prediction.mfu)
    assert seconds == sorted(seconds, reverse=True)
    assert used == sorted(used, reverse=True)
