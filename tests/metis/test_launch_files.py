"""Launch files: every rank started once and in the plan's order; Megatron says only what it can."""

import os
import re
import shutil
import subprocess

import msgspec
import pytest

from common.errors import InputError
from common.files import read_plan
from metis.inputs.model import Model
from metis.plan.plans import Plan, check
from metis.run.launch_files import write_launch_files
from metis.run.megatron import inexpressible, megatron_arguments, megatron_file
from tests.metis.toy_plans import make_plan


def case(stages, *, layers, samples, experiment="two-types"):
    """A plan of stages on a model of that many layers and samples per micro-batch."""
    model = Model(layers=layers, heads=8, global_batch=2 * samples)
    return make_plan(stages, model=model, experiment=experiment)


MIXED = case(
    [
        (2, 2, 4, (3, 3), ("A100",) * 4),
        (4, 1, 6, (2, 2, 1, 1), ("A100", "A100", "T4", "T4")),
    ],
    layers=10,
    samples=6,
)
NODES = [("big-0", "A100", 6), ("small", "T4", 1), ("10.0.0.7", "T4", 1)]


def test_every_node_gets_a_script_with_its_ranks_and_the_plan(tmp_path):
    paths = write_launch_files(MIXED, NODES, tmp_path / "launch")
    assert [path.name for path in paths] == [
        "plan.json",
        "node0-big-0.sh",
        "node1-small.sh",
        "node2-10.0.0.7.sh",
        "megatron-args.txt",
    ]
    assert read_plan(paths[0], Plan, check) == MIXED
    texts = [path.read_text() for path in paths[1:4]]
    assert "# Node 0 of 3: big-0, 6 x A100, ranks 0-5 of 8, stage 0, 1 of 2." in texts[0]
    assert "# Node 1 of 3: small, 1 x T4, ranks 6-6 of 8, stage 1 of 2." in texts[1]
    for path in paths[1:4]:
        assert os.access(path, os.X_OK)


@pytest.mark.skipif(shutil.which("bash") is None, reason="the scripts need bash")
def test_scripts_call_torchrun_with_what_their_node_needs(tmp_path):
    plan = case([(3, 1, 5, (1, 1, 1), ("T4",) * 3)], layers=5, samples=3)
    nodes = [("a", "T4", 2), ("b", "T4", 1)]
    script = write_launch_files(plan, nodes, tmp_path / "with space")[2]
    echo = tmp_path / "torchrun"
    echo.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    echo.chmod(0o755)
    env = {"TORCHRUN": str(echo), "PATH": os.environ["PATH"], "MASTER_PORT": "1234"}
    told = subprocess.run([script, "--seed", "7"], env=env, capture_output=True, text=True)
    assert told.stdout.splitlines() == [
        "--nnodes=2",
        "--node-rank=1",
        "--nproc-per-node=1",
        "--rdzv-backend=static",
        "--rdzv-endpoint=a:1234",
        "-m",
        "metis",
        "run",
        str(script.parent / "experiment.toml"),
        "--plan",
        str(script.parent / "plan.json"),
        "--backend",
        "nccl",
        "--seed",
        "7",
    ]


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([("a", "A100", 6)], "the nodes have 6 devices, but the plan is for 8"),
        ([("a", "T4", 2), ("b", "A100", 6)], "rank 0 of the nodes is a T4, but the plan wants a A"),
        ([("a; rm -rf", "A100", 8)], "is not a host's name or address"),
    ],
)
def test_nodes_that_are_not_the_plans_are_refused(nodes, says, tmp_path):
    with pytest.raises(InputError, match=re.escape(says)):
        write_launch_files(MIXED, nodes, tmp_path)


def uniform(*layers, samples=(3, 3)):
    """Stages of dp2 tp2 with those layers."""
    return case([(2, 2, count, samples) for count in layers], layers=sum(layers), samples=6)


def test_megatron_gets_model_batch_and_degrees():
    assert megatron_arguments(uniform(4, 3, 4)) == [
        "--num-layers 9",
        "--hidden-size 4096",
        "--num-attention-heads 8",
        "--seq-length 1024",
        "--max-position-embeddings 1024",
        "--position-embedding-type learned_absolute",
        "--untie-embeddings-and-output-weights",
        "--global-batch-size 12",
        "--micro-batch-size 3",
        "--tensor-model-parallel-size 2",
        "--pipeline-model-parallel-size 3",
    ]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((5,), []),
        ((3, 3), []),
        ((3, 5), ["--decoder-first-pipeline-num-layers 2"]),
        ((6, 2, 2, 3), ["--decoder-first-pipeline-num-layers 5"]),
        ((3, 2, 2, 6), ["--decoder-last-pipeline-num-layers 5"]),
        (
            (3, 3, 3, 5),
            ["--decoder-first-pipeline-num-layers 2", "--decoder-last-pipeline-num-layers 4"],
        ),
        ((3, 1, 4, 2), ["--pipeline-model-parallel-layout Ett|t|tttt|tL"]),
        ((1, 3, 1), ["--pipeline-model-parallel-layout E|ttt|L"]),
    ],
)
def test_megatron_gets_the_layer_split(layers, words):
    assert megatron_arguments(uniform(*layers))[11:] == words


def test_megatron_is_told_what_saves_memory():
    plan = uniform(3, 3)
    stages = [
        msgspec.structs.replace(stage, recompute="full", sharded=True) for stage in plan.stages
    ]
    alike = msgspec.structs.replace(plan, stages=tuple(stages))
    assert megatron_arguments(alike)[11:] == [
        "--recompute-granularity full",
        "--recompute-method uniform",
        "--recompute-num-layers 1",
        "--use-distributed-optimizer",
    ]
    unlike = msgspec.structs.replace(plan, stages=(plan.stages[0], stages[1]))
    assert inexpressible(unlike) == [
        "it recomputes the same in all stages; here: stage 0 none, stage 1 full"
        ' (search.recompute = ["full"] or another one makes them alike).'
    ]


def test_what_megatron_cannot_express_is_said_and_no_layout_is_given():
    unlike = megatron_file(MIXED)
    assert "same degrees; here: stage 0 dp2 tp2, stage 1 dp4 tp1." in unlike
    uneven = uniform(4, 4, samples=(4, 2))
    assert inexpressible(uneven) == [
        "it gives all replicas the same micro-batch size; here: stage 0 [4, 2], stage 1 [4, 2]."
    ]
    for text in (unlike, megatron_file(uneven)):
        assert "--num-layers" in text
        assert "parallel-size" not in text
    assert "cannot" not in megatron_file(uniform(4, 4))
