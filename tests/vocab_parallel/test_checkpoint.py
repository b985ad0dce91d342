"""Training goes on from a checkpoint, by any method and any number of ranks."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from vocab_parallel.inputs.experiment import Experiment, Pipeline, Training
from vocab_parallel.inputs.model import Model
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.run.launch import launch
from vocab_parallel.run.settings import RunResult

pytestmark = pytest.mark.timeout(400)  # real ranks: a busy machine takes long to start them


def train(
    method: str, p: int, steps: int, folder: str = "", tensor: int = 1, **training: Any
) -> RunResult:
    settings = {"dtype": "float64", "checkpoint": folder, "timeout_s": 200.0} | training
    experiment = Experiment(
        name="resumed",
        model=Model(layers=4, hidden=16, heads=2, sequence=6, vocabulary=53),
        pipeline=Pipeline(
            ranks=p, batches=4 // training.get("data_parallel", 1), tensor_parallel=tensor
        ),
        training=Training(steps=steps, **settings),
    )
    return launch(make_plan(experiment, method), experiment.training, seed=1)


@pytest.fixture(scope="module")
def unbroken() -> tuple[float, ...]:
    return train("baseline", 1, 6).losses


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(("vocab-2", 2), ("vocab-2", 2), marks=pytest.mark.slow),
        (("vocab-1", 4), ("baseline", 2)),
        pytest.param(("baseline", 2), ("v-half-vocab-2", 2), marks=pytest.mark.slow),
        (("vocab-2", 3), ("interlaced", 4)),
    ],
)
def test_the_loss_curve_goes_on(
    tmp_path: Path,
    unbroken: tuple[float, ...],
    before: tuple[str, int],
    after: tuple[str, int],
) -> None:
    first = train(*before, 3, str(tmp_path), checkpoint_every=2)
    second = train(*after, 6, str(tmp_path))
    assert second.first_step == 3
    assert first.losses + second.losses == pytest.approx(unbroken, rel=1e-9)


def test_it_goes_on_with_other_replicas_and_other_ranks_per_position(
    tmp_path: Path, unbroken: tuple[float, ...]
) -> None:
    losses: list[float] = []
    for number, (method, p, tensor, replicas) in enumerate(
        [("vocab-2", 2, 1, 2), ("vocab-1", 2, 2, 1), ("baseline", 1, 2, 2), ("redis", 2, 1, 1)], 1
    ):
        done = train(method, p, number, str(tmp_path), tensor, data_parallel=replicas)
        assert done.first_step == number - 1
        losses += done.losses
    assert losses == pytest.approx(unbroken[:4], rel=1e-9)


def test_bfloat16_goes_on_from_its_main_weights(tmp_path: Path) -> None:
    whole = train("vocab-2", 2, 4, dtype="bfloat16").losses
    first = train("vocab-2", 2, 2, str(tmp_path), dtype="bfloat16").losses
    assert first + train("vocab-2", 2, 4, str(tmp_path), dtype="bfloat16").losses == whole


def test_a_cut_checkpoint_is_passed_over(tmp_path: Path) -> None:
    train("vocab-1", 2, 2, str(tmp_path), checkpoint_every=1)
    (tmp_path / "step-00000002/.metadata").unlink()
    assert train("vocab-1", 2, 3, str(tmp_path)).first_step == 1


@pytest.mark.parametrize(("file", "text"), [("about.json", "{}"), (".metadata", "junk")])
def test_a_spoilt_checkpoint_is_refused_by_name(tmp_path: Path, file: str, text: str) -> None:
    train("baseline", 1, 1, str(tmp_path))
    (tmp_path / "step-00000001" / file).write_text(text)
    with pytest.raises(InputError, match="step-00000001 is no whole checkpoint"):
        train("baseline", 1, 2, str(tmp_path))


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    train("vocab-1", 2, 1, str(tmp_path))
    experiment = Experiment(
        name="other",
        model=Model(layers=4, hidden=8, heads=2, sequence=6, vocabulary=53),
        pipeline=Pipeline(ranks=2, batches=4),
        training=Training(steps=2, dtype="float64", checkpoint=str(tmp_path), timeout_s=200.0),
    )
    with pytest.raises(InputError, match="another model or seed"):
        launch(make_plan(experiment, "vocab-1"), experiment.training, seed=1)
