"""Recomputation and a sharded optimizer: less memory, the same results, on real gloo ranks."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from common.ranks import run_ranks
from puzzle.inputs.examples import examples
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.plan.plans import make_plan
from puzzle.run.launch import launch
from puzzle.run.settings import Job
from tests.puzzle.rank_tasks import PATIENCE_S, align_jobs

pytestmark = pytest.mark.timeout(600)

BOTH = {"recompute": True, "shard_optimizer": True}


def job(
    layouts: tuple[str, str], savings: dict[str, bool], schedule: str, **running: object
) -> Job:
    """Return a run of two steps; layouts as p, t and d."""
    train, generate = (
        Layout(**dict(zip(("pipeline", "tensor", "data"), map(int, text), strict=True)))
        for text in layouts
    )
    value = msgspec.to_builtins(examples()["tiny-cpu-1"])
    choice = Choice(training=train, generation=generate, schedule=schedule, **savings)
    value["choice"], value["devices"] = msgspec.to_builtins(choice), train.world
    value["work"] |= {"batch": 8, "answer": 6, "micro_batch": 2, "decode_micro_batch": 4}
    fast = {"rate": 0.01, "warmup": 0.0}
    value["running"] |= {"timeout_s": PATIENCE_S, "steps": 2, "dtype": "float64"}
    value["running"] |= {"actor_optimizer": fast, "critic_optimizer": fast} | running
    asked = msgspec.convert(value, Experiment)
    return Job(make_plan(asked, "given"), asked.ppo, asked.running, 0, "gloo")


CASES = (
    (("112", "121"), {"shard_optimizer": True}, "merged"),
    (("112", "211"), BOTH, "sequential"),
    (("211", "121"), {"recompute": True}, "fused"),
    (("121", "112"), {"recompute": True}, "merged"),
)


def test_two_ranks_learn_the_same_with_recomputation_and_a_sharded_optimizer():
    plain = [job(layouts, {}, schedule) for layouts, _, schedule in CASES]
    saving = [job(*case) for case in CASES]
    found = run_ranks(align_jobs, 2, [*plain, *saving])[0]
    for case, mine, theirs in zip(CASES, found[len(CASES) :], found, strict=False):
        assert mine.digest == theirs.digest
        np.testing.assert_allclose(mine.norms, theirs.norms, rtol=1e-10)
        np.testing.assert_allclose(mine.losses, theirs.losses, rtol=1e-10, atol=1e-12)
        for name, value in theirs.weights.items():
            apart = np.abs(mine.weights[name] - value).max()
            assert apart <= 1e-10 * np.abs(value).max(), (case, name)


def test_a_sharded_optimizer_has_the_files_of_a_whole_one_and_either_goes_on_from_them(
    tmp_path: Path,
):
    """In bfloat16, where main weights are of their own; the decayed matrices are the same ones."""
    asked = {"dtype": "bfloat16", "checkpoint_every": 1}
    folders = {name: str(tmp_path / name) for name in ("whole", "shared")}
    two = ("112", "112")
    runs = {
        name: launch(
            job(two, {"shard_optimizer": name == "shared"}, "merged", checkpoint=f, **asked)
        )
        for name, f in folders.items()
    }
    for model in ("actor", "critic"):
        file = f"step-00000001/{model}-p0-t0.safetensors"
        whole, shared = (load_file(Path(folder) / file) for folder in folders.values())
        assert whole.keys() == shared.keys()
        for name, value in whole.items():
            np.testing.assert_allclose(shared[name], value, rtol=1e-5, atol=1e-9)
    for folder in folders.values():
        (Path(folder) / "step-00000002").rename(Path(folder) / "later")
    turned = {"whole": folders["shared"], "shared": folders["whole"]}
    for name, folder in turned.items():
        saved = str(tmp_path / f"{name}-saved")
        savings = {"shard_optimizer": name == "shared"}
        again = launch(job(two, savings, "merged", checkpoint=folder, save_to=saved, **asked))
        assert again.first_step == 1
        last = runs["whole"].steps[-1]
        assert again.steps[-1].actor_norm == pytest.approx(last.actor_norm, rel=1e-2)
    saved = [
        load_file(tmp_path / f"{name}-saved" / "model-00001-of-00001.safetensors")
        for name in turned
    ]
    for name, value in saved[0].items():
        np.testing.assert_allclose(saved[1][name], value, atol=1e-3)
