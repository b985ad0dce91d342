"""Models by `config`: sizes from it, contradictions by name, tensor degrees that divide heads."""

import json
from pathlib import Path

import msgspec
import pytest

from common.case import resolve
from common.errors import InputError
from metis import experiments as named
from metis.inputs.cluster import NodeGroup
from metis.inputs.experiment import ClusterSource, Experiment, checked
from metis.inputs.model import Model
from metis.plan.methods import make_plan, make_problem
from metis.plan.plans import Plan
from metis.plan.stages import StageModel
from metis.plan.switches import of_mode
from metis.run.megatron import inexpressible, megatron_arguments
from metis.run.settings import Training, check_widths
from tests.metis.toy_plans import make_plan as toy_plan

LLAMA = Model(config="Llama-3-8B", sequence_length=4096)


def test_sizes_come_from_the_config_and_embedding_and_head_count_as_layers() -> None:
    found = LLAMA.resolved()
    assert (found.layers, found.hidden_size, found.heads) == (34, 4096, 32)
    assert (found.kv_heads, found.vocabulary) == (8, 128256)
    assert found.resolved() == found


def test_a_folder_with_a_config_is_read(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 99}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = Model(config=str(tmp_path)).resolved()
    assert (found.layers, found.hidden_size, found.heads, found.vocabulary) == (5, 64, 4, 99)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 32}, "model.layers is 32, but Llama-3-8B makes it 34"),
        ({"hidden_size": 512}, "model.hidden_size is 512, but Llama-3-8B makes it 4096"),
        ({"kv_heads": 32}, "model.kv_heads is 32, but Llama-3-8B makes it 8"),
        ({"config": "BERT-base-uncased"}, "an encoder without an output head"),
        ({"config": "Llama-3-9B"}, "Llama-3-8B"),
        ({"config": "GPT-2"}, "model.sequence_length is 4096, but GPT-2 has positions for 1024"),
    ],
)
def test_what_contradicts_a_config_is_one_sentence(changes: dict, message: str) -> None:
    model = msgspec.structs.replace(LLAMA, **changes)
    with pytest.raises(InputError, match=message) as found:
        checked(msgspec.structs.replace(named()["my-llama"], model=model))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, "model.layers is missing, expected 3 or more"),
        ({"layers": 9, "kv_heads": 8}, "model.kv_heads is 8, but a model without config"),
        ({"layers": 9, "vocabulary": 0}, "model.vocabulary is 0"),
    ],
)
def test_a_model_without_config_is_a_gpt(sizes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Model(**sizes)


def test_another_config_can_be_set_on_the_written_example() -> None:
    found = resolve("my-llama", named(), Experiment, ["model.config=Llama-3-70B"])
    assert found.model.resolved().layers == 82


def question(model: Model, **search: object) -> Experiment:
    """Four A100 in two nodes, up to tp 4."""
    base = named()["mixed-44"]
    settings = msgspec.structs.asdict(base.search) | {"time_limit_s": 60.0} | search
    node = NodeGroup(device="A100", count=2, devices=4)
    return msgspec.structs.replace(
        base,
        name="own",
        model=model,
        cluster=ClusterSource(nodes=(node,)),
        search=type(base.search)(**settings),
    )


@pytest.mark.parametrize("method", ["optimal", "wider", "metis", "stratified", "uniform"])
def test_25_heads_are_never_shared_out_over_2_ranks(method: str) -> None:
    xl = Model(layers=26, hidden_size=1600, heads=25, vocabulary=50257, global_batch=64)
    asked = question(xl, method=method)
    cluster = asked.load_cluster()
    problem = make_problem(asked, cluster, asked.load_profiles(cluster))
    found = make_plan(asked, problem, asked.search.method)
    assert found.plan is not None
    assert {stage.tp for stage in found.plan.stages} == {1}
    check_widths(found.plan)


def test_a_degree_divides_kv_heads_too_in_strict_and_need_not_in_compat() -> None:
    asked = question(msgspec.structs.replace(LLAMA, config="Qwen2.5-7B"))
    cluster = asked.load_cluster()
    problem = make_problem(asked, cluster, asked.load_profiles(cluster))
    assert (problem.model.heads, problem.model.kv_heads) == (28, 4)
    free = msgspec.structs.replace(problem, max_tp=8)
    strict = StageModel(free, free.ranks(("A100",)))
    assert [tp for tp in (1, 2, 4, 7, 8) if strict.allows(1, tp, 8)] == [1, 2, 4]
    kept = msgspec.structs.replace(free, switches=of_mode("compat"))
    assert StageModel(kept, kept.ranks(("A100",))).allows(1, 8, 128)


def llama_plan(config: str) -> Plan:
    """A plan of two equal stages for a model by its config."""
    model = Model(config=config, sequence_length=4096, global_batch=4).resolved()
    half = model.layers // 2
    stages = [(1, 2, half, (2,), ("A100",) * 2), (1, 2, model.layers - half, (2,), ("A100",) * 2)]
    return toy_plan(stages, model=model, experiment="own")


def test_megatron_is_told_what_sets_a_llama_apart() -> None:
    plan = llama_plan("Llama-3-8B")
    assert inexpressible(plan) == []
    wanted = {"--ffn-hidden-size 14336", "--num-query-groups 8", "--swiglu", "--rotary-base 500000"}
    assert wanted < set(megatron_arguments(plan))
    assert "--position-embedding-type learned_absolute" not in megatron_arguments(plan)
    assert inexpressible(llama_plan("Qwen2.5-7B")) == [
        "the arguments of the family qwen2 are not known here."
    ]


def test_ranks_refuse_to_train_a_llama_as_a_gpt_but_take_its_layout_in_small() -> None:
    plan = llama_plan("Llama-3-8B")
    with pytest.raises(InputError, match="is of the family llama, which metis plans but does not"):
        check_widths(plan)
    small = Training(hidden_size=8, heads=2, vocabulary=11, sequence_length=4).apply(plan)
    assert (small.model.config, small.model.kv_heads, small.model.layers) == ("", 2, 34)
    check_widths(small)
