"""Job configs of torchtitan as ours: what is used, what is left aside, what is refused by name."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vocab_parallel
from common.errors import InputError
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.inputs.job_keys import lists, read_job
from vocab_parallel.inputs.load import loaded
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.simulate.memory import static_bytes

JOB = """
[job]
description = "Llama 3 8B training"
[metrics]
log_freq = 10
[model]
name = "llama3"
flavor = "8B"
tokenizer_path = "./assets/tokenizer.model"
[optimizer]
name = "AdamW"
lr = 3e-4
[training]
local_batch_size = 16
seq_len = 8192
steps = 1000
[parallelism]
data_parallel_shard_degree = 2
tensor_parallel_degree = 2
pipeline_parallel_degree = 4
pipeline_parallel_schedule = "Interleaved1F1B"
context_parallel_degree = 1
[activation_checkpoint]
mode = "full"
"""


def read(tmp_path: Path, text: str, **fields: object) -> Experiment:
    file = tmp_path / "llama3_8b.toml"
    file.write_text(text)
    return loaded(Experiment(name="titan", torchtitan=str(file), **fields))  # type: ignore[arg-type]


def test_a_job_config_becomes_an_experiment(tmp_path: Path) -> None:
    found = read(tmp_path, JOB)
    model, pipeline, training = found.model, found.pipeline, found.training
    assert (model.layers, model.hidden, model.groups, model.wide) == (32, 4096, 8, 14336)
    assert (model.vocabulary, model.sequence, model.tied) == (128256, 8192, False)
    assert (pipeline.ranks, pipeline.tensor_parallel, pipeline.sequence_parallel) == (4, 2, True)
    assert (pipeline.batches, pipeline.batch_size) == (16, 1)
    assert (training.data_parallel, training.shard_optimizer) == (2, True)
    assert (training.dtype, training.learning_rate, training.clip) == ("bfloat16", 3e-4, 1.0)
    assert (training.recompute, training.recompute_layers) == ("uniform", 1)
    assert found.about == (
        "from llama3_8b.toml; left aside: job.description, metrics.log_freq, model.tokenizer_path,"
        " parallelism.pipeline_parallel_schedule"
    )


def test_its_memory_is_what_the_hand_works_out(tmp_path: Path) -> None:
    """Of a middle stage of vocab-1: 8 layers and two eighths of both matrices, 8 + 4 of 18 bytes.

    A layer: 4096 x (4096 + 2 x 1024 + 4096) and 3 x 4096 x 14336 over 2 ranks, two norms whole.
    """
    layer = (4096 * (4096 + 2 * 1024 + 4096) + 3 * 4096 * 14336) // 2 + 2 * 4096
    count = 8 * layer + 2 * 128256 * 4096 // 8
    plan = make_plan(read(tmp_path, JOB), "vocab-1")
    assert static_bytes(plan, 1) == pytest.approx(count * (2 + 4 + 12 / 2), rel=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('flavor = "8B"', 'flavor = "debugmodel"', "say llama3.debugmodel, whose sizes are not"),
        ("log_freq", "log_freqs", "metrics.log_freqs has no counterpart here (did you mean"),
        ("[metrics]", "[engine]", "engine.log_freq has no counterpart here"),
        ("context_parallel_degree = 1", "context_parallel_degree = 2", "= 2 has no counterpart"),
        ("seq_len = 8192", 'seq_len = "8k"', "training.seq_len is '8k', expected a whole number"),
        ("lr = 3e-4", 'lr = "low"', "optimizer.lr is 'low', expected a number"),
        ('name = "AdamW"', 'name = "Muon"', "optimizer.name = 'Muon' has no counterpart here"),
        ('mode = "full"', 'mode = "some"', "activation_checkpoint.mode is 'some', expected one of"),
        (
            'mode = "full"',
            'mode = "selective"\nselective_ac_option = "op"',
            "selective_ac_option is 'op', which has no counterpart here; give the n",
        ),
        (
            "data_parallel_shard_degree = 2",
            "data_parallel_shard_degree = 2\ndata_parallel_replicate_degree = 2",
            "data_parallel_replicate_degree is 2 beside 2 shards",
        ),
        ("pipeline_parallel_degree = 4", "pipeline_parallel_degree = 1", "without a pipeline"),
        ("shard_degree = 2", "shard_degree = 0", "shard_degree is 0, expected -1, or 1 or more"),
        ("steps = 1000", "global_batch_size = 40", "global_batch_size 40 and local_batch_size 16"),
        ("steps = 1000", "steps = true", "training.steps is True, expected a whole number"),
        (
            "context_parallel_degree = 1",
            "pipeline_parallel_layers_per_stage = 4",
            "says how many stages a rank has; leave it out and set pipeline.virtual_stages",
        ),
        (
            "context_parallel_degree = 1",
            'module_fqns_per_model_part = [["tok_embeddings", "layers.0"], ["layers.2"]]',
            "module_fqns_per_model_part has other modules than tok_embeddings, layers.0 and on",
        ),
        (
            "context_parallel_degree = 1",
            'module_fqns_per_model_part = "layers.0"',
            "module_fqns_per_model_part is 'layers.0', expected a list of modules for each part",
        ),
        ("[job]", "steps = 3\n[job]", "steps stands outside of a table"),
        ("[job]", "[job", "no TOML: "),
    ],
)
def test_what_has_another_meaning_is_refused_by_name(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(InputError) as refused:
        read(tmp_path, JOB.replace(old, new))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_nth_layer_and_what_is_left_to_the_number_of_ranks(tmp_path: Path) -> None:
    text = JOB.replace('mode = "full"', 'mode = "selective"\nselective_ac_option = "3"')
    text = text.replace("data_parallel_shard_degree = 2", "data_parallel_shard_degree = -1")
    file = tmp_path / "job.toml"
    file.write_text(text)
    mine = tmp_path / "my.toml"
    mine.write_text(f'name = "titan"\ntorchtitan = "{file}"\n[training]\ndata_parallel = 4\n')
    found = vocab_parallel.load(str(mine))
    assert (found.training.recompute, found.training.recompute_layers) == ("every", 3)
    assert (found.training.data_parallel, found.training.shard_optimizer) == (4, True)
    assert found.pipeline.batches == 16


def test_two_sources_of_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="megatron and torchtitan both say the model"):
        read(tmp_path, JOB, megatron="train.sh")
    with pytest.raises(InputError, match="no such file; expected a job config of torchtitan"):
        loaded(Experiment(name="titan", torchtitan=str(tmp_path / "none.toml")))


def test_no_key_is_in_two_lists() -> None:
    known = lists()
    names = [f"{table}.{key}" for table, keys in known.aside.items() for key in keys]
    names += [*known.used, *known.same, *known.refused]
    assert len(names) == len({*names})


@given(table=st.text(min_size=1), key=st.text(min_size=1), value=st.integers() | st.text())
def test_no_unknown_key_passes(table: str, key: str, value: object) -> None:
    with pytest.raises(InputError, match="has no counterpart here"):
        read_job({table: {key: value}})
