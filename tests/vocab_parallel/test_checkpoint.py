"""Training goes on from a checkpoint, by any method and any number of ranks."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import torch.distributed as dist

from common.errors import InputError
from vocab_parallel.inputs.experiment import Experiment, Pipeline, Training
from vocab_parallel.inputs.model import Model
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.run.checkpoint import Loaded, load, save
from vocab_parallel.run.launch import launch
from vocab_parallel.run.settings import Job, RunResult
from vocab_parallel.run.train import Trainer

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


@pytest.fixture
def trained(tmp_path: Path) -> Iterator[tuple[Trainer, Path]]:
    """Yield a trainer in this process alone, with its checkpoints of steps 1 and 2."""
    store = f"file://{tmp_path}/rendezvous"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    experiment = Experiment(
        name="alone",
        model=Model(layers=1, hidden=8, heads=2, sequence=6, vocabulary=11),
        pipeline=Pipeline(ranks=1, batches=2),
        training=Training(dtype="float64", checkpoint_fallback=True),
    )
    job = Job(make_plan(experiment, "vocab-2"), experiment.training, 1, "gloo")
    trainer, folder = Trainer(job, torch.device("cpu")), tmp_path / "kept"
    for number in (0, 1):
        trainer.step(number)
        save(trainer.state, folder, number + 1)
    yield trainer, folder
    dist.destroy_process_group()


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_one_flipped_bit_anywhere_is_refused_by_the_files_name(
    trained: tuple[Trainer, Path],
) -> None:
    trainer, folder = trained
    random = Random(1)
    files = sorted((folder / "step-00000002").iterdir())
    assert len(files) == 3
    for file in files:
        content = file.read_bytes()
        for place in [0, len(content) - 1, *random.sample(range(len(content)), 20)]:
            file.write_bytes(flipped(content, place))
            with pytest.raises(InputError, match=rf"step-00000002/{file.name} is damaged .*remove"):
                load(trainer.state, folder)
            assert load(trainer.state, folder, fallback=True).step == 1
        file.write_bytes(content)
        assert load(trainer.state, folder) == Loaded(2)


def test_a_missing_piece_is_refused_and_a_cut_checkpoint_passed_over(
    trained: tuple[Trainer, Path],
) -> None:
    trainer, folder = trained
    piece = next((folder / "step-00000002").glob("*.distcp"))
    piece.unlink()
    with pytest.raises(InputError, match=f"{piece.name} is missing"):
        load(trainer.state, folder)
    (folder / "step-00000002/about.json").unlink()  # as where it was not written to its end
    assert load(trainer.state, folder) == Loaded(1)
    (folder / "step-00000001/.metadata").unlink()
    with pytest.raises(InputError, match="holds no checkpoint that is not damaged"):
        load(trainer.state, folder, fallback=True)


def test_it_goes_on_from_the_checkpoint_before_if_asked(
    tmp_path: Path, unbroken: tuple[float, ...]
) -> None:
    train("vocab-1", 2, 3, str(tmp_path), checkpoint_every=1)
    piece = tmp_path / "step-00000003/__1_0.distcp"
    piece.write_bytes(flipped(piece.read_bytes(), 4000))
    with pytest.raises(InputError, match=r"__1_0\.distcp is damaged"):
        train("vocab-1", 2, 4, str(tmp_path))
    done = train("vocab-1", 2, 4, str(tmp_path), checkpoint_fallback=True, checkpoint_every=1)
    assert (done.first_step, len(done.passed_over)) == (2, 1)
    assert done.losses == pytest.approx(unbroken[2:4], rel=1e-9)
    assert train("vocab-1", 2, 5, str(tmp_path)).first_step == 4


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
