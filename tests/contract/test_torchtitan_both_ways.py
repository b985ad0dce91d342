"""What metis exports for torchtitan is read by vocab_parallel as the same job, both as users do."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
if not all((ROOT / name / "artifact.py").exists() for name in ("metis", "vocab_parallel")):
    pytest.skip("needs metis and vocab_parallel", allow_module_level=True)


def told(package: str, *words: str, cwd: Path) -> dict[str, Any]:
    """What a command line prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", package, *words, "--json"],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def a10g(nodes: int) -> tuple[str, ...]:
    return (f'cluster.nodes=[{{ device = "A10G", count = {nodes}, devices = 4 }}]',)


H100 = ('cluster.nodes=[{ device = "H100", devices = 8 }]', "search.max_tp=1")
SIZES = {
    "layers": "layers",
    "hidden_size": "hidden",
    "heads": "heads",
    "kv_heads": "kv_heads",
    "vocabulary": "vocabulary",
    "sequence_length": "sequence",
}
CASES = {
    "two stages, tensor groups, an even split": a10g(4),
    "three stages, a split of its own": (*a10g(3), "model.global_batch=96"),
    "no pipeline, shared optimizer": H100,
    "float32": (*H100, "profile.dtype=float32"),
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_job_of_a_plan_is_read_back_the_same(changes: tuple[str, ...], tmp_path: Path) -> None:
    sets = [word for change in ("profile.dtype=bfloat16", *changes) for word in ("--set", change)]
    plan = told(
        "metis", "plan", "my-llama", "--method", "uniform", "--export", "torchtitan", *sets,
        cwd=tmp_path,
    )["plan"]  # fmt: skip
    job = tmp_path / "results/metis/exports/my-llama.uniform/torchtitan.toml"
    (tmp_path / "read.toml").write_text(f'name = "read"\ntorchtitan = "{job}"\n')
    read = told("vocab_parallel", "inputs", "read.toml", cwd=tmp_path)
    stages, (first, *_) = plan["stages"], plan["stages"]
    pipeline, training, model = read["pipeline"], read["training"], plan["model"]
    assert pipeline["ranks"] == len(stages)
    assert pipeline["tensor_parallel"] == first["tp"]
    assert pipeline["batches"] == plan["batches"]
    assert pipeline["batch_size"] == first["samples"][0]
    assert training["data_parallel"] == first["dp"]
    assert training["shard_optimizer"] == (first["sharded"] and first["dp"] > 1)
    assert training["dtype"] == ("float32" if "profile.dtype=float32" in changes else "bfloat16")
    assert {ours: read["model"][theirs] for ours, theirs in SIZES.items()} == {
        **{ours: model[ours] for ours in SIZES},
        "layers": model["layers"] - 2,
    }
    blocks = [stage["end_layer"] - stage["first_layer"] for stage in stages]
    blocks[0], blocks[-1] = blocks[0] - 1, blocks[-1] - 1
    assert pipeline["layers"] or changes != CASES["three stages, a split of its own"]
    if pipeline["layers"]:
        assert pipeline["layers"] == blocks
    else:
        even, more = divmod(model["layers"], len(stages))
        of_torchtitan = [even + (n < more) for n in range(len(stages))]
        assert [stage["end_layer"] - stage["first_layer"] for stage in stages] == of_torchtitan
