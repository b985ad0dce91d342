"""A plan for other trainers: only what they can express, accepted by their own configuration."""

import json
import tomllib
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from metis.inputs.model import Model
from metis.plan.plans import Plan
from metis.run import deepspeed, torchtitan
from metis.run.exports import EXPORTS, export, known
from tests.metis.toy_plans import make_plan

LLAMA = Model(name="llama", config="Llama-3-8B", sequence_length=4096, global_batch=16).resolved()


def llama(*stages: tuple, batches: int = 4, **changes: object) -> Plan:
    """A plan of Llama-3-8B on A100: (dp, tp, layers, samples)."""
    made = make_plan(
        [(*stage, ("A100",) * (stage[0] * stage[1])) for stage in stages],
        batches=batches,
        model=LLAMA,
    )
    same = tuple(
        msgspec.structs.replace(stage, **{"sharded": True, **changes}) for stage in made.stages
    )
    return msgspec.structs.replace(made, stages=same)


PIPED = llama((2, 2, 17, (2, 2)), (2, 2, 17, (2, 2)))
UNEVEN = llama((2, 1, 20, (2, 2)), (2, 1, 14, (2, 2)))
ALONE = llama((4, 1, 34, (1, 1, 1, 1)))


def job(plan: Plan) -> dict:
    assert torchtitan.obstacles(plan, "bfloat16") == []
    return tomllib.loads(torchtitan.content(plan, "bfloat16"))


def test_torchtitan_gets_degrees_batches_and_what_is_computed_again() -> None:
    found = job(PIPED)
    assert found["model"] == {"name": "llama3", "flavor": "8B"}
    assert found["training"]["local_batch_size"] == 8  # 4 micro-batches of 2
    assert found["training"]["global_batch_size"] == 16
    assert found["parallelism"] == {
        "data_parallel_replicate_degree": 1,
        "data_parallel_shard_degree": 2,
        "fsdp_reshard_after_forward": "never",
        "tensor_parallel_degree": 2,
        "pipeline_parallel_degree": 2,
        "pipeline_parallel_schedule": "1F1B",
        "pipeline_parallel_microbatch_size": 2,
    }
    assert job(ALONE)["training"]["local_batch_size"] == 1  # four times: gradients are summed
    assert job(llama((1, 1, 34, (4,)), recompute="full"))["activation_checkpoint"]["mode"] == "full"


@given(st.sets(st.integers(1, 33), min_size=1, max_size=7))
def test_a_split_of_its_own_names_every_module_once(cuts: set[int]) -> None:
    borders = [0, *sorted(cuts), 34]
    plan = llama(*((1, 1, end - first, (4,)) for first, end in pairwise(borders)))
    parts = job(plan)["parallelism"].get("module_fqns_per_model_part")
    even, more = divmod(34, len(plan.stages))
    usual = [even + (n < more) for n in range(len(plan.stages))]
    if parts is None:
        assert [stage.layers for stage in plan.stages] == usual
        return
    layers = [f"layers.{n}" for n in range(32)]
    assert [name for part in parts for name in part] == [
        "tok_embeddings",
        *layers,
        "norm",
        "output",
    ]
    # The final norm and the output matrix are one layer of ours.
    assert [len(p) - (p[-1] == "output") for p in parts] == [stage.layers for stage in plan.stages]
    assert [stage.layers for stage in plan.stages] != usual


GPT = make_plan([(1, 1, 5, (4,))])
MIXED = llama((2, 2, 17, (2, 2)), (4, 1, 17, (1, 1, 1, 1)))
UNSHARDED = llama((2, 2, 34, (2, 2)), sharded=False)
SELECTIVE = llama((2, 2, 34, (2, 2)), recompute="selective")
V100 = msgspec.structs.replace(
    ALONE, stages=(msgspec.structs.replace(ALONE.stages[0], device_types=("V100",) * 4),)
)


@pytest.mark.parametrize(
    ("form", "plan", "dtype", "message"),
    [
        ("torchtitan", GPT, "bfloat16", "it has no flavor of GPT's sizes"),
        ("torchtitan", MIXED, "bfloat16", r"same degrees; here: .* \(--method uniform"),
        ("torchtitan", UNSHARDED, "bfloat16", "each hold the whole optimizer"),
        ("torchtitan", SELECTIVE, "bfloat16", "does not recompute MLPs alone"),
        ("torchtitan", V100, "float16", "V100 knows no bfloat16"),
        ("deepspeed", MIXED, "bfloat16", "same degrees"),
        ("deepspeed", PIPED, "bfloat16", "leaves tensor groups to the model's own code; here: tp2"),
        ("deepspeed", SELECTIVE, "bfloat16", "no recomputation of MLPs alone"),
        ("deepspeed", llama((1, 1, 34, (4,)), recompute="full"), "bfloat16", "without a pipeline"),
        (
            "deepspeed",
            llama((1, 1, 20, (4,)), (1, 1, 14, (4,)), recompute="full"),
            "bfloat16",
            r"shares layers out evenly; here: 20\|14",
        ),
    ],
)
def test_what_a_trainer_cannot_express_is_refused_in_one_sentence(
    form: str, plan: Plan, dtype: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        export(form, plan, dtype, tmp_path)  # type: ignore[arg-type]
    assert str(refused.value).startswith(f"--export {form}: ")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_another_trainer_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="--export is 'keras', expected one of torchtitan, deeps"):
        known("keras")
    assert [known(form) for form in EXPORTS] == list(EXPORTS)


def deepspeed_config(plan: Plan, dtype: str, home: Path) -> dict:
    paths, _ = export("deepspeed", plan, dtype, home)  # type: ignore[arg-type]
    return json.loads(paths[0].read_text())


def test_deepspeed_gets_batches_zero_stage_and_type(tmp_path: Path) -> None:
    assert deepspeed_config(UNEVEN, "bfloat16", tmp_path) == {
        "train_batch_size": 16,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 4,
        "zero_optimization": {"stage": 1},
        "bf16": {"enabled": True},
        "fp16": {"enabled": False},
        "pipeline": {
            "stages": 2,
            "partition": "uniform",
            "activation_checkpoint_interval": 0,
        },
    }
    rows = json.loads((tmp_path / deepspeed.LIST).read_text())
    assert rows == [[0, 20], [20, 34]]
    tensors = llama((2, 2, 34, (2, 2)))
    assert deepspeed_config(tensors, "float16", tmp_path)["tensor_parallel"] == {"autotp_size": 2}


class Replicas:
    """What DeepSpeed asks of a model-parallel unit."""

    def __init__(self, count: int) -> None:
        self.count = count

    def get_data_parallel_world_size(self) -> int:
        return self.count


CONFIGS = [UNEVEN, ALONE, llama((2, 1, 17, (2, 2)), (2, 1, 17, (2, 2)), recompute="full")]


@pytest.mark.parametrize("plan", CONFIGS, ids=["uneven", "alone", "full"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_deepspeeds_own_configuration_accepts_the_file(
    plan: Plan, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pytest.importorskip("deepspeed.runtime.config")
    monkeypatch.setattr(config.dist, "get_rank", lambda: 0)  # it asks no replicas but of a group
    written = deepspeed_config(plan, dtype, tmp_path)
    read = config.DeepSpeedConfig(written, mpu=Replicas(plan.stages[0].dp))
    assert read.train_batch_size == plan.model.global_batch
    assert read.train_micro_batch_size_per_gpu == plan.stages[0].samples[0]
    assert read.gradient_accumulation_steps == plan.batches
    assert read.zero_optimization_stage == 1
    assert (read.bfloat16_config.enabled, read.float16_config.enabled) == (
        dtype == "bfloat16",
        dtype == "float16",
    )
    if len(plan.stages) > 1:
        assert read.pipeline["stages"] == len(plan.stages)


@given(st.sets(st.integers(1, 33), min_size=1, max_size=7))
def test_deepspeeds_partition_of_the_list_is_the_plans_split(cuts: set[int]) -> None:
    partition = pytest.importorskip("deepspeed.runtime.utils").partition_uniform
    borders = [0, *sorted(cuts), 34]
    plan = llama(*((1, 1, end - first, (4,)) for first, end in pairwise(borders)))
    rows = deepspeed.entries(plan)
    parts = partition(len(rows), len(plan.stages))
    split = [(rows[first][0], rows[end - 1][1]) for first, end in pairwise(parts)]
    assert split == [(stage.first_layer, stage.end_layer) for stage in plan.stages]
