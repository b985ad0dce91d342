"""llama, mistral, qwen, gemma and GPT-2 at tiny sizes: transformers is the oracle."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from common.errors import InputError
from common.ranks import run_ranks
from tests.vocab_parallel.rank_tasks import train_jobs
from vocab_parallel.inputs.experiment import Experiment, Pipeline, Training
from vocab_parallel.inputs.load import loaded
from vocab_parallel.inputs.model import Model
from vocab_parallel.plan.methods import METHODS
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.run import output
from vocab_parallel.run.launch import launch
from vocab_parallel.run.settings import Job
from vocab_parallel.run.train import Trainer

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.timeout(400)  # real ranks: a busy machine takes long to start them

COMMON = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
    "max_position_embeddings": 32,
    "head_dim": 12,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": COMMON | {"rope_theta": 500000.0},
    "mistral": COMMON | {"sliding_window": 5},
    "qwen2": {k: v for k, v in COMMON.items() if k != "head_dim"},
    "qwen3": COMMON | {"tie_word_embeddings": True},
    "gemma2": COMMON
    | {
        "sliding_window": 5,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 2.0,
    },
    "gemma3_text": COMMON
    | {
        "sliding_window": 5,
        "query_pre_attn_scalar": 20,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "gpt2": {
        "n_embd": 32,
        "n_layer": 8,
        "n_head": 4,
        "vocab_size": 101,
        "n_positions": 16,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
}


def saved(kind: str, folder: Path) -> torch.nn.Module:
    """Write a tiny model of a family with weights that are far from any symmetry."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(kind, **KINDS[kind])
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for value in model.parameters():
                value += 0.15 * torch.randn(value.shape, generator=generator)
        model.save_pretrained(folder)
    return model.eval()


def asked(folder: Path, *, ranks: int = 1, **training: Any) -> Experiment:
    return loaded(
        Experiment(
            name="tiny",
            model=Model(config=str(folder), sequence=16),
            pipeline=Pipeline(ranks=ranks, batches=4),
            training=Training(**({"weights": str(folder), "timeout_s": 200.0} | training)),
        )
    )


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    store = f"file://{tmp_path}/rendezvous"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def logits_of(trainer: Trainer, tokens: Tensor) -> Tensor:
    """Return the logits of a model that one rank holds whole."""
    held, model = trainer.held, trainer.plan.model
    assert held.inputs is not None
    assert held.output is not None
    x = held.inputs[0].weight[tokens]
    for stage in held.stages:
        x = stage.forward(x)
    found = output.logits(x.flatten(0, 1), held.output[0], model.logit_softcap)
    return found[:, : model.vocabulary].unflatten(0, tokens.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind: str, tmp_path: Path, alone: None) -> None:
    theirs = saved(kind, tmp_path)
    experiment = asked(tmp_path)
    job = Job(make_plan(experiment, "baseline"), experiment.training, 1, "gloo")
    tokens = torch.randint(0, 101, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(tokens).logits
        found = logits_of(Trainer(job, torch.device("cpu")), tokens)
    assert expected.std() > 0.3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "kind",
    [
        "gemma3_text",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gpt2")
        ),
    ],
)
def test_every_method_trains_a_family_as_one_process_does(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    one, four = (
        [
            Job(make_plan(e, method), e.training, 1, "gloo")
            for method in methods
            for e in [asked(tmp_path, ranks=ranks, dtype="float64", steps=3)]
        ]
        for ranks, methods in ((1, ["baseline"]), (4, list(METHODS)))
    )
    (alone,) = run_ranks(train_jobs, 1, one, timeout_s=200.0)[0]
    assert alone.losses[2] < alone.losses[0] or alone.norms[0] > 0
    for job, found in zip(four, run_ranks(train_jobs, 4, four, timeout_s=200.0)[0], strict=True):
        assert found.losses == pytest.approx(alone.losses, rel=1e-9), job.plan.method
        assert found.norms == pytest.approx(alone.norms, rel=1e-9), job.plan.method
        assert found.evaluation == pytest.approx(alone.evaluation, rel=1e-9), job.plan.method


def test_two_ranks_a_position_train_grouped_heads_alike(tmp_path: Path) -> None:
    saved("qwen3", tmp_path)
    results = []
    for tensor in (1, 2):
        experiment = asked(tmp_path, dtype="float64", steps=3)
        pipeline = Pipeline(ranks=1, batches=4, tensor_parallel=tensor)
        experiment = Experiment(
            name="team", model=experiment.model, pipeline=pipeline, training=experiment.training
        )
        jobs = [
            Job(make_plan(experiment, m), experiment.training, 1, "gloo")
            for m in ("baseline", "vocab-2")
        ]
        results += run_ranks(train_jobs, tensor, jobs, timeout_s=200.0)[0]
    for found in results[1:]:
        assert found.losses == pytest.approx(results[0].losses, rel=1e-9)
        assert found.norms == pytest.approx(results[0].norms, rel=1e-9)


def test_the_first_loss_and_gradient_are_those_of_transformers(tmp_path: Path, alone: None) -> None:
    theirs = saved("gemma2", tmp_path)
    experiment = asked(tmp_path, clip=0.0)
    job = Job(make_plan(experiment, "vocab-2"), experiment.training, 1, "gloo")
    trainer = Trainer(job, torch.device("cpu"))
    tokens = torch.cat([batch.tokens for batch in trainer.batches(0)])
    labels = torch.cat([batch.labels for batch in trainer.batches(0)])
    loss = torch.nn.functional.cross_entropy(theirs(tokens).logits.flatten(0, 1), labels)
    loss.backward()
    norm = torch.stack([p.grad.square().sum() for p in theirs.parameters() if p.grad is not None])
    step = trainer.step(0)
    assert step.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert step.gradient_norm == pytest.approx(float(norm.sum().sqrt()), rel=1e-4)


def test_weights_of_another_model_or_none_are_refused(tmp_path: Path, alone: None) -> None:
    saved("llama", tmp_path)
    for model, folder, message in (
        (Model(layers=8), tmp_path, "has no transformer"),
        (asked(tmp_path).model, tmp_path / "none", r"no \*\.safetensors"),
    ):
        experiment = Experiment(
            name="wrong",
            model=model,
            pipeline=Pipeline(ranks=1, batches=1),
            training=Training(weights=str(folder)),
        )
        small = {"hidden": 16, "heads": 2, "vocabulary": 11, "sequence": 4}
        if model.positions == "learned":
            experiment = Experiment(
                name="wrong",
                model=Model(layers=8, **small),
                pipeline=experiment.pipeline,
                training=experiment.training,
            )
        job = Job(make_plan(experiment, "baseline"), experiment.training, 1, "gloo")
        with pytest.raises(InputError, match=message):
            Trainer(job, torch.device("cpu"))


def test_scalings_of_rotations_that_are_not_built_are_refused(tmp_path: Path) -> None:
    words = KINDS["llama"] | {"model_type": "llama"}
    words["rope_scaling"] = {"rope_type": "yarn", "factor": 2.0}
    (tmp_path / "config.json").write_text(json.dumps(words))
    experiment = asked(tmp_path, weights="")
    with pytest.raises(InputError, match=r"model\.rope_factor is -1"):
        launch(make_plan(experiment, "baseline"), experiment.training)
