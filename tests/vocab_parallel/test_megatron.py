"""Megatron's arguments and layouts as ours, and its parallel layers beside ours."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from common.errors import InputError
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.inputs.megatron import parse, read_megatron, stage_layers
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.run.megatron import cross_check
from vocab_parallel.run.ranks import run_ranks

pytestmark = pytest.mark.timeout(400)  # real ranks: a busy machine takes long to start them

SCRIPT = """
#!/bin/bash
torchrun --nproc_per_node 8 pretrain_gpt.py \\
    --num-layers 32 --hidden-size 3072 --num-attention-heads 24 \\
    --seq-length 4096 --vocab-size 256000 --untie-embeddings-and-output-weights \\
    --pipeline-model-parallel-size 8 --tensor-model-parallel-size 2 \\
    --micro-batch-size 1 --global-batch-size 128 \\
    --pipeline-model-parallel-layout="Et*5|(t*5|)*5t*2|L" \\
    --bf16 --lr 6.0e-5 --clip-grad 8.0 --adam-beta2 0.95  # as in the paper
"""


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
    ("layout", "layers"),
    [("Ettt|ttL", (3, 2)), ("E|t*4|L", (0, 4, 0)), ("E|(tt|)*3L", (0, 2, 2, 2, 0))],
)
def test_layouts(layout: str, layers: tuple[int, ...]) -> None:
    assert stage_layers(layout, sum(layers), len(layers)) == layers


@pytest.mark.parametrize("layout", ["t|tL", "Et|t", "Emt|tL", "Et|t|L"])
def test_layouts_that_are_none_are_refused(layout: str) -> None:
    with pytest.raises(InputError, match="layout"):
        stage_layers(layout, 2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--context-parallel-size 2", "has no counterpart"),
        ("--num-experts 8", "has no counterpart"),
        ("--swiglu", "--swiglu has no counterpart"),
        ("--normalization RMSNorm", "RMSNorm has no counterpart"),
        ("--global-batch-size 5 --micro-batch-size 2", "no multiple"),
        ("--hidden-size wide", "expected a whole number"),
        ("--lr fast", "expected a number"),
    ],
)
def test_what_cannot_be_carried_over_is_refused(tmp_path: Path, change: str, message: str) -> None:
    file = tmp_path / "train.sh"
    file.write_text(SCRIPT.replace("  # as in the paper", f" {change}"))
    with pytest.raises(InputError, match=message):
        read_megatron(Experiment(name="mega"), file)


def test_flags_and_equal_signs_are_read() -> None:
    assert parse("run.py --a 1 --b --c=x y --d") == {"--a": "1", "--b": "", "--c": "x y", "--d": ""}


@pytest.mark.skipif(find_spec("megatron") is None, reason="megatron-core is not installed")
def test_parallel_linear_and_cross_entropy_agree_with_megatron_core() -> None:
    for found in run_ranks(cross_check, 2, timeout_s=200.0):
        assert max(found) < 1e-5
