"""Every method trains to the losses and weights of one process (float64, real gloo ranks)."""

from typing import Any

import numpy as np
import pytest
import torch

from common.ranks import run_ranks
from tests.vocab_parallel.rank_tasks import Outcome, train_and_check, train_jobs
from tests.vocab_parallel.reference import Trained, train_plainly
from vocab_parallel.inputs.experiment import Experiment, Pipeline, Training
from vocab_parallel.inputs.model import Model
from vocab_parallel.plan.methods import METHODS
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.run.model import Stage
from vocab_parallel.run.settings import Job
from vocab_parallel.run.weights import Store

pytestmark = pytest.mark.timeout(400)  # real ranks: a busy machine takes long to start them
TOLERANCE = 1e-9


def job(
    method: str,
    p: int,
    m: int,
    *,
    tied: bool = False,
    tensor: int = 1,
    layers: int = 8,
    vocabulary: int = 53,
    **training: Any,
) -> Job:
    experiment = Experiment(
        name="equal",
        model=Model(
            layers=layers, hidden=16, heads=2, sequence=6, vocabulary=vocabulary, tied=tied
        ),
        pipeline=Pipeline(ranks=p, batches=m, tensor_parallel=tensor),
        training=Training(
            **{"dtype": "float64", "steps": 5, "clip": 0.5, "timeout_s": 200.0} | training
        ),
    )
    return Job(make_plan(experiment, method), experiment.training, 3, "gloo")


def train(jobs: list[Job]) -> list[Outcome]:
    return run_ranks(train_jobs, jobs[0].world, jobs, timeout_s=200.0)[0]


def assert_equal(ours: Outcome, theirs: Trained) -> None:
    assert ours.losses == pytest.approx(theirs.losses, rel=TOLERANCE)
    assert ours.norms == pytest.approx(theirs.norms, rel=TOLERANCE)
    assert ours.evaluation == pytest.approx(theirs.evaluation, rel=TOLERANCE)
    assert ours.weights.keys() == theirs.weights.keys()
    for name, weight in theirs.weights.items():
        np.testing.assert_allclose(ours.weights[name], weight, TOLERANCE, TOLERANCE, err_msg=name)


USUAL = [(2, 1, False), (4, 4, True)]
SIZES = [
    *USUAL,
    (2, 4, False),
    (2, 4, True),
    (2, 8, True),
    (4, 1, True),
    (4, 4, False),
    (4, 8, False),
]


@pytest.mark.parametrize(
    ("p", "m", "tied"),
    [pytest.param(*size, marks=() if size in USUAL else pytest.mark.slow) for size in SIZES],
)
def test_all_methods_train_like_one_process(p: int, m: int, tied: bool) -> None:
    jobs = [job(method, p, m, tied=tied) for method in METHODS]
    theirs = train_plainly(jobs[0].plan, jobs[0].training, seed=3)
    for one, ours in zip(jobs, train(jobs), strict=True):
        try:
            assert_equal(ours, theirs)
        except AssertionError as error:
            raise AssertionError(f"{one.plan.method}: {error}") from error


@pytest.mark.slow
def test_three_ranks_and_batches_and_layers_that_do_not_divide() -> None:
    jobs = [job(method, 3, 5, block=4) for method in METHODS]
    assert {one.plan.layers for one in jobs} >= {(3, 3, 2), (2, 3, 3), (1, 1, 1, 1, 2, 2)}
    theirs = train_plainly(jobs[0].plan, jobs[0].training, seed=3)
    for one, ours in zip(jobs, train(jobs), strict=True):
        try:
            assert_equal(ours, theirs)
        except AssertionError as error:
            raise AssertionError(f"{one.plan.method}: {error}") from error


def test_chunks_without_a_layer_train_alike() -> None:
    methods = ("v-half-vocab-1", "interleaved", "zb-v", "zb-v-vocab-2")
    jobs = [job(method, 3, 4, layers=4, steps=2) for method in methods]
    assert {one.plan.layers for one in jobs} == {(0, 0, 1, 1, 1, 1), (0, 1, 1, 1, 1, 0)}
    theirs = train_plainly(jobs[0].plan, jobs[0].training, seed=3)
    for ours in train(jobs):
        assert_equal(ours, theirs)


@pytest.mark.parametrize("vocabulary", [1, 3])
def test_ranks_without_a_row_of_the_vocabulary_train_alike(vocabulary: int) -> None:
    methods = ("vocab-2", "interlaced", "zb-v-vocab-1")
    jobs = [job(method, 4, 3, vocabulary=vocabulary, steps=2) for method in methods]
    theirs = train_plainly(jobs[0].plan, jobs[0].training, seed=3)
    for ours, errors in run_ranks(train_and_check, 4, jobs, timeout_s=200.0)[0]:
        assert_equal(ours, theirs)
        assert max(errors.values()) < 1e-12


@pytest.mark.parametrize(
    ("p", "m", "tied"),
    [
        (1, 2, True),
        *(pytest.param(*size, marks=pytest.mark.slow) for size in ((2, 3, False), (2, 4, True))),
    ],
)
def test_two_ranks_for_every_pipeline_position(p: int, m: int, tied: bool) -> None:
    jobs = [job(method, p, m, tied=tied, tensor=2) for method in METHODS]
    theirs = train_plainly(jobs[0].plan, jobs[0].training, seed=3)
    for one, ours in zip(jobs, train(jobs), strict=True):
        try:
            assert_equal(ours, theirs)
        except AssertionError as error:
            raise AssertionError(f"{one.plan.method}: {error}") from error


def test_replicas_smoothing_blocks_and_the_published_form_train_alike() -> None:
    settings = {"data_parallel": 2, "label_smoothing": 0.1, "block": 4}
    methods = ("baseline", "vocab-1", "vocab-2", "v-half-vocab-2")
    jobs = [job(method, 2, 3, **settings) for method in methods]
    jobs.append(job("vocab-2", 2, 3, **settings, vocab_2="published", keep="logits"))
    jobs.append(job("vocab-1", 2, 3, **settings, keep="nothing"))
    theirs = train_plainly(jobs[0].plan, jobs[0].training, seed=3)
    for ours in train(jobs):
        assert_equal(ours, theirs)


def test_layers_that_are_computed_again_train_alike() -> None:
    jobs = [
        job("vocab-2", 2, 3, recompute="uniform", recompute_layers=3),
        job("zb-h1-vocab-1", 2, 3, recompute="block", recompute_layers=2),
        job("interleaved", 2, 3, recompute="uniform"),
        job("v-half-vocab-2", 2, 3, recompute="every", recompute_layers=2),
        job("zb-v-vocab-2", 2, 3, recompute="block", recompute_layers=1),
        job("vocab-1", 1, 3, tensor=2, recompute="every", recompute_layers=3),
    ]
    theirs = train_plainly(jobs[0].plan, jobs[0].training, seed=3)
    for ours in train(jobs):
        assert_equal(ours, theirs)


def test_of_layers_that_are_computed_again_the_inputs_alone_are_kept() -> None:
    model = Model(layers=4, hidden=16, heads=2, sequence=6, vocabulary=53)
    kept = []
    for again in ((), (range(2), range(2, 4))):
        store = Store(torch.float64, torch.device("cpu"), 0)
        stage = Stage(model, store, layers=range(4), first=False, last=False, again=again)
        found: list[int] = []
        x_NTH = torch.ones(1, 6, 16, dtype=torch.float64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, found=found: found.append(tensor.numel()) or tensor, lambda t: t
        ):
            stage.forward(x_NTH)
        kept.append(sum(found))
    assert kept[1] <= 2 * 6 * 16 < kept[0] / 4


def test_bfloat16_comes_near_and_float32_nearer() -> None:
    jobs = [
        job(method, 2, 4, dtype=dtype)
        for dtype in ("float32", "bfloat16")
        for method in ("baseline", "vocab-1", "vocab-2")
    ]
    theirs = train_plainly(jobs[0].plan, jobs[0].training, seed=3)
    for one, ours in zip(jobs, train(jobs), strict=True):
        tolerance = 1e-5 if one.training.dtype == "float32" else 1e-2
        assert ours.losses == pytest.approx(theirs.losses, rel=tolerance)


def test_all_ranks_hold_pieces_that_make_the_vocabulary() -> None:
    outcome = train([job("vocab-2", 4, 2, steps=1)])[0]
    assert [len(piece) for piece in outcome.pieces["output"].values()] == [14, 14, 14, 11]
