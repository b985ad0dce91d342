"""One rank's program alone: the passes of the whole pipeline's rank, no other process."""

from pathlib import Path

import pytest

from common.artifact import Ask, Case, Done, Folder
from common.errors import InputError
from common.record import Record
from common.suites import do
from vocab_parallel.artifact import ARTIFACT
from vocab_parallel.inputs.experiment import Experiment, MethodName, Pipeline, Training
from vocab_parallel.inputs.model import Model
from vocab_parallel.paper.tables import replayed
from vocab_parallel.plan.methods import METHODS


def replay(replay_rank: int, method: MethodName, out: Path) -> tuple[Record, Done]:
    """Return what came of a replay, and its record."""
    experiment = Experiment(
        name="replayed",
        model=Model(layers=8, hidden=16, heads=2, sequence=6, vocabulary=53),
        pipeline=Pipeline(ranks=4, batches=5, method=method),
        training=Training(replay_rank=replay_rank),
    )
    folder = Folder(out, "vocab_parallel")
    done = do(ARTIFACT, Case(verb="run", experiment=experiment), folder, Ask(folder=folder))
    return folder.records("own").read()[-1], done


@pytest.mark.parametrize("method", ["baseline", "vocab-1", "v-half-vocab-2"])
def test_every_rank_is_busy_and_an_iteration_follows(tmp_path: Path, method: MethodName) -> None:
    assert method in METHODS
    record, _ = replay(-1, method, tmp_path)
    metrics = {metric.name: metric for metric in record.metrics}
    assert len(metrics["busy"].samples) == 4
    assert metrics["iteration.predicted"].value > 0
    assert len(replayed([record]).rows) == 5


def test_one_rank_alone(tmp_path: Path) -> None:
    record, done = replay(2, "vocab-2", tmp_path)
    assert len({metric.name: metric for metric in record.metrics}["busy"].samples) == 1
    assert "replayed rank 2" in done.summary


def test_a_rank_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected -1"):
        replay(4, "vocab-2", tmp_path)
