"""A run that was ended goes on by another plan as if nothing had happened."""

import json
from pathlib import Path

import msgspec
import pytest

from common.errors import InputError
from metis.run import Training, launch
from metis.run.settings import RunResult
from tests.metis.toy_plans import MODEL, make_plan

pytestmark = pytest.mark.timeout(300)

FLOAT64 = Training(dtype="float64", timeout_s=60)
ALONE = make_plan([(1, 1, 5, (4,))])
SPLIT = make_plan([(2, 1, 2, (3, 1)), (1, 4, 3, (4,))])
"""Uneven replicas before a tensor group of four, which cuts 11 words into 3, 3, 3 and 2."""


def trained(plan, steps: int, out: Path | None = None, **changes: object) -> RunResult:
    training = msgspec.structs.replace(FLOAT64, **changes)
    return launch(plan, steps=steps, out=out, training=training)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a run that ended after 2 steps on six ranks."""
    out = tmp_path_factory.mktemp("run")
    trained(SPLIT, 2, out, checkpoint_every=1)
    return out / "checkpoints"


def test_a_run_goes_on_by_another_plan_as_if_it_had_not_ended(ended: Path) -> None:
    whole, resumed = trained(ALONE, 4), trained(ALONE, 4, resume=str(ended))
    assert resumed.first_step == 2
    assert resumed.losses == pytest.approx(whole.losses[2:], rel=1e-10)
    assert resumed.gradient_norms == pytest.approx(whole.gradient_norms[2:], rel=1e-9)


@pytest.mark.slow
def test_one_rank_s_checkpoint_is_cut_for_many(tmp_path: Path) -> None:
    trained(ALONE, 3, tmp_path, checkpoint_every=2)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-2", "step-3"}
    first = tmp_path / "checkpoints" / "step-2"
    whole, resumed = trained(ALONE, 4), trained(SPLIT, 4, resume=str(first))
    assert resumed.losses == pytest.approx(whole.losses[2:], rel=1e-10)


def test_two_checkpoints_are_kept_each_with_digests(ended: Path) -> None:
    assert sorted(path.name for path in ended.iterdir()) == ["step-1", "step-2"]
    facts = json.loads((ended / "step-2/checkpoint.json").read_text())
    assert set(facts["files"]) == {f"layer-{layer}.pt" for layer in range(MODEL.layers)}


def test_what_a_run_cannot_go_on_from_is_one_sentence(ended: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no checkpoint there"):
        trained(ALONE, 4, resume=str(tmp_path))
    with pytest.raises(InputError, match=r"has done 2 steps and training.steps is 2; raise it"):
        trained(ALONE, 2, resume=str(ended))
    with pytest.raises(InputError, match=r"was trained with training.dtype float64, not float32"):
        trained(ALONE, 4, resume=str(ended), dtype="float32")
    with pytest.raises(InputError, match=r"there is no folder to write to"):
        trained(ALONE, 1, checkpoint_every=1)
    layer = ended / "step-2/layer-1.pt"
    layer.write_bytes(layer.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"layer-1.pt is missing or not what was written"):
        trained(ALONE, 4, resume=str(ended))
