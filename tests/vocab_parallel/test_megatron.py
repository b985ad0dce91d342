"""Megatron's launch scripts, arguments and layouts as ours, and its parallel layers beside ours."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from common.errors import InputError
from common.ranks import run_ranks
from vocab_parallel.inputs.arguments import lists, read_arguments
from vocab_parallel.inputs.experiment import Experiment, Training
from vocab_parallel.inputs.family import from_config
from vocab_parallel.inputs.megatron import read_megatron
from vocab_parallel.inputs.megatron_model import given_model
from vocab_parallel.inputs.model import Model, layer_parameters
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.run.megatron import cross_check

pytestmark = pytest.mark.timeout(400)  # real ranks: a busy machine takes long to start them

SCRIPTS = Path(__file__).parent / "scripts"
needs_megatron = pytest.mark.skipif(
    find_spec("megatron") is None, reason="megatron-core is not installed"
)

SCRIPT = """
#!/bin/bash
torchrun --nproc_per_node 8 --nnodes 2 pretrain_gpt.py \\
    --num-layers 32 --hidden-size 3072 --num-attention-heads 24 \\
    --seq-length 4096 --vocab-size 256000 --untie-embeddings-and-output-weights \\
    --pipeline-model-parallel-size 8 --tensor-model-parallel-size 2 \\
    --micro-batch-size 1 --global-batch-size 128 \\
    --pipeline-model-parallel-layout="Et*5|(t*5|)*5t*2|L" \\
    --bf16 --lr 6.0e-5 --clip-grad 8.0 --adam-beta2 0.95  # as in the paper
"""

PLANNED = {
    # (layers, hidden, vocabulary, tied), (stages, tensor, micro-batches, size, layers), replicas
    "first_last.sh": ((30, 1024, 128000, False), (4, 1, 16, 1, (6, 10, 10, 4)), 2),
    "eight_nodes.sh": ((32, 3072, 128000, False), (8, 1, 64, 1, ()), 8),
    "arrays.sh": ((24, 1024, 64000, False), (4, 1, 16, 2, ()), 2),
    "gpt_175b.sh": ((96, 12288, 51200, True), (16, 8, 768, 1, ()), 2),
    "strings.sh": ((40, 5120, 100096, True), (4, 2, 16, 2, ()), 4),
    "slurm.sh": ((30, 2048, 250048, False), (8, 1, 8, 4, (3, 4, 4, 4, 4, 4, 4, 3)), 2),
    "layout.sh": ((14, 512, 32000, True), (4, 1, 1, 1, (3, 4, 4, 3)), 1),
    "last_only.sh": ((30, 1024, 30592, True), (4, 1, 1, 4, (9, 9, 9, 3)), 1),
    "llama_70b.sh": ((80, 8192, 128512, False), (8, 4, 32, 1, (9, 10, 10, 10, 10, 10, 10, 11)), 2),
    "sharded_optimizer.sh": ((8, 1024, 30720, True), (4, 2, 1, 4, ()), 2),
    "bare.txt": ((8, 256, 1024, True), (2, 1, 8, 2, ()), 2),
    "virtual.sh": ((16, 1024, 30592, True), (4, 1, 1, 4, ()), 2),
    "virtual_layout.sh": ((16, 1024, 30592, True), (2, 1, 1, 4, (4, 4, 4, 4)), 4),
}
"""Worked out by hand by Megatron's rules; `bare.txt` has no launcher, so that the experiment says
the replicas."""

REFUSED = {
    "gpt2_tokenizer.sh": "--vocab-file is gpt2-vocab.json: no such file",
    "further_tokens.sh": "--mtp-num-layers 1 has no counterpart",
    "rotary.sh": "--mtp-num-layers 1 has no counterpart",
    "llama_fp8.sh": "--fp8-format has no counterpart",
    "mixture.sh": "--num-experts has no counterpart",
    "checkpoint.sh": "--use-checkpoint-args takes the sizes from a checkpoint",
    "other_model.sh": "pretrain_bert.py trains a model (bert) of another kind",
    "from_outside.sh": "--nproc-per-node is '' (not set in the script: $GPUS)",
    "counted_gpus.sh": "--nproc-per-node is what `nvidia-smi -L | wc -l` prints",
    "unset_batch.sh": "--micro-batch-size has no value; not set in the script: $MBS",
    "broken_line.sh": "line 3 begins with --num-layers",
    "two_trainings.sh": "2 commands with --num-layers",
    "uneven.sh": "--num-layers 30 is no multiple of --pipeline-model-parallel-size 4",
}


@pytest.mark.parametrize("name", PLANNED)
def test_a_script_is_planned_by_megatrons_rules(name: str) -> None:
    experiment = Experiment(name="mega", training=Training(data_parallel=2))
    found = read_megatron(experiment, SCRIPTS / name)
    model, pipeline = found.model, found.pipeline
    sizes, cut, replicas = PLANNED[name]
    assert (model.layers, model.hidden, model.vocabulary, model.tied) == sizes
    assert cut == (
        pipeline.ranks,
        pipeline.tensor_parallel,
        pipeline.batches,
        pipeline.batch_size,
        pipeline.layers,
    )
    assert found.training.data_parallel == replicas


@pytest.mark.parametrize("name", REFUSED)
def test_a_script_with_another_meaning_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError) as refused:
        read_megatron(Experiment(name="mega"), SCRIPTS / name)
    assert REFUSED[name] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_llama_script_has_a_llamas_layers() -> None:
    model = read_megatron(Experiment(name="mega"), SCRIPTS / "llama_70b.sh").model
    known = from_config(Model(config="Llama-3-70B", sequence=8192))
    for field in ("layers", "hidden", "heads", "head", "groups", "wide", "tied"):
        assert getattr(model, field) == getattr(known, field), field
    for field in ("gated", "biases", "norm", "positions", "activation", "rope_theta"):
        assert getattr(model, field) == getattr(known, field), field
    assert layer_parameters(model) == layer_parameters(known)


def test_megatrons_defaults_of_widths_and_groups() -> None:
    words = "--num-layers 2 --hidden-size 1024 --num-attention-heads 8 --seq-length 64"
    plain = given_model(read_arguments(words.split()), 128)
    assert (plain.wide, plain.groups, plain.head, plain.tied) == (4096, 8, 128, True)
    assert (plain.norm, plain.biases, plain.positions) == ("layer", "all", "learned")
    words += " --swiglu --group-query-attention --kv-channels 64 --use-rotary-position-embeddings"
    words += " --num-query-groups 2 --disable-bias-linear --add-qkv-bias"
    found = given_model(read_arguments(words.split()), 128)
    assert (found.wide, found.groups, found.head) == (2688, 2, 64)  # 2730 in multiples of 64
    assert (found.gated, found.biases, found.positions) == (True, "qkv", "rope")


def test_every_script_of_the_folder_is_tried() -> None:
    tried = PLANNED.keys() | REFUSED.keys()
    assert {path.name for path in SCRIPTS.iterdir()} == tried


def test_sharded_optimizers_and_sequences_are_planned() -> None:
    found = read_megatron(Experiment(name="mega"), SCRIPTS / "sharded_optimizer.sh")
    assert found.pipeline.sequence_parallel
    assert found.training.shard_optimizer
    held = make_plan(found, "vocab-1").holdings
    assert (held.replicas, held.parameter_bytes) == (2, 2 + 4 + (4 + 8) / 2)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("", ("none", 1)),
        ("--recompute-activations", ("none", 1)),
        ("--recompute-granularity selective --recompute-modules core_attn", ("none", 1)),
        (
            "--recompute-granularity full --recompute-method uniform --recompute-num-layers 2",
            ("uniform", 2),
        ),
        (
            "--recompute-granularity full --recompute-method block --recompute-num-layers 1",
            ("block", 1),
        ),
    ],
)
def test_recomputed_layers_are_planned(
    tmp_path: Path, words: str, settings: tuple[str, int]
) -> None:
    file = tmp_path / "train.sh"
    file.write_text(SCRIPT.replace("  # as in the paper", f" {words}"))
    training = read_megatron(Experiment(name="mega"), file).training
    assert (training.recompute, training.recompute_layers) == settings


def test_what_is_left_aside_is_told() -> None:
    found = read_megatron(Experiment(name="mega", about="mine"), SCRIPTS / "layout.sh")
    assert found.about == "mine; from layout.sh; left aside: --recompute-activations"


def test_a_launch_script_becomes_an_experiment(tmp_path: Path) -> None:
    file = tmp_path / "train.sh"
    file.write_text(SCRIPT)
    found = read_megatron(Experiment(name="mega"), file)
    model, pipeline = found.model, found.pipeline
    assert (model.layers, model.hidden, model.heads, model.sequence) == (32, 3072, 24, 4096)
    assert (model.vocabulary, model.tied) == (256000, False)
    assert (pipeline.ranks, pipeline.batches, pipeline.batch_size) == (8, 128, 1)
    assert pipeline.tensor_parallel == 2
    assert pipeline.layers == (5, 5, 5, 5, 5, 5, 2, 0)
    assert (found.training.dtype, found.training.learning_rate) == ("bfloat16", 6e-5)
    assert make_plan(found, "redis").layers == pipeline.layers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--recompute-granularity full", "--recompute-method none, expected uniform or block"),
        ("--recompute-granularity full --recompute-method block", "--recompute-num-layers is not"),
        ("--recompute-num-layers 2", "is of --recompute-granularity full alone"),
        ("--recompute-granularity some", "expected full or selective"),
        ("--recompute-modules mlp", "--recompute-modules mlp has no counterpart"),
        ("--context-parallel-size 2", "--context-parallel-size has no counterpart"),
        ("--num-experts 8", "--num-experts has no counterpart"),
        ("--squared-relu", "--squared-relu has no counterpart"),
        ("--normalization Other", "--normalization Other has no counterpart"),
        ("--qk-layernorm", "--qk-layernorm has no counterpart here with --normalization LayerNorm"),
        ("--rotary-percent 0.5", "--rotary-percent 0.5 has no counterpart"),
        ("--position-embedding-type none", "--position-embedding-type none has no counterpart"),
        ("--no-position-embedding", "--no-position-embedding has no counterpart"),
        ("--global-batch-size 5 --micro-batch-size 2", "no multiple"),
        ("--hidden-size wide", "expected a whole number"),
        ("--num-layers", "--num-layers has no value"),
        ("--lr fast", "expected a number"),
        ("--data-parallel-size 2", "is no argument of Megatron's"),
        ("--bf16 yes", "'yes' follows --bf16, which takes no word"),
        ("--group-query-attention --num-query-groups 5", "--num-query-groups 5 does not divide"),
        ("--max-position-embeddings 8192", "--max-position-embeddings 8192 is not --seq-length"),
        ("--attention-dropot 0.1", "did you mean --attention-dropout?"),
        ("--tensor-model-parallel-size 3", "no multiple of --tensor-model-parallel-size x"),
    ],
)
def test_what_cannot_be_carried_over_is_refused(tmp_path: Path, change: str, message: str) -> None:
    file = tmp_path / "train.sh"
    file.write_text(SCRIPT.replace("  # as in the paper", f" {change}"))
    with pytest.raises(InputError) as refused:
        read_megatron(Experiment(name="mega"), file)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x81", "no text: byte 0"),
        (b"\x00\x01", "no text: it holds"),
        (b"", "0 commands with --num-layers"),
        (b"torchrun 'pretrain_gpt.py", "is not closed"),
        (b"echo --num-layers 4", "0 commands"),
        (b"(" * 5000, "is not closed"),
        (b"{ " * 3000 + b"true", "nested too deep"),
        (b"x" * (1 << 21), "too many for a launch script"),
    ],
)
def test_what_is_no_script_is_refused_in_a_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "train.sh"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_megatron(Experiment(name="mega"), file)


def test_every_other_name_is_refused_and_none_is_listed_twice() -> None:
    known = lists()
    groups = [known.used, *known.aside.values()]
    names = [n for g in groups for kind in (g.value, g.values, g.flag) for n in kind]
    names += [*known.same, *known.refused]
    assert len(names) == len(set(names)) > 250
    with pytest.raises(InputError, match="--no-such has no counterpart here; leave it out"):
        read_arguments(["--num-layers", "2", "--no-such", "1"])


def test_flags_equal_signs_and_the_last_of_two_are_read() -> None:
    found = read_arguments(["--lr", "1", "--bf16", "--lr=2", "--profile-ranks", "0", "1"])
    assert found.used == {"--lr": "2", "--bf16": ""}
    assert found.aside == ("--profile-ranks",)


@needs_megatron
def test_parallel_linear_and_cross_entropy_agree_with_megatron_core() -> None:
    for found in run_ranks(cross_check, 2, timeout_s=200.0):
        assert max(found) < 1e-5
