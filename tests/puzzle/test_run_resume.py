"""Checkpoints and files: the identical continuation, any layout, Hugging Face's format."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from common.errors import InputError
from common.ranks import Backend, run_ranks
from puzzle.inputs.examples import examples
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import tensors
from puzzle.plan.plans import make_plan
from puzzle.plan.slices import Slice
from puzzle.run.checkpoint_files import checkpoint_weights
from puzzle.run.data import batch_of, load_tokenizer, order_of, prompts_for
from puzzle.run.deepspeed_models import hugging_face
from puzzle.run.generate import Prompts, Special
from puzzle.run.hybrid import Drawer, generate, told
from puzzle.run.launch import check_job, launch
from puzzle.run.settings import Job
from puzzle.run.weights import random_weights
from tests.puzzle.rank_tasks import (
    PATIENCE_S,
    align_jobs,
    cached_and_whole,
    generate_both_ways,
    overflow,
)

pytestmark = pytest.mark.timeout(600)

TWO = Choice(training=Layout(pipeline=2), generation=Layout(tensor=2))


def job(choice: Choice = TWO, seed: int = 0, **running: object) -> Job:
    experiment = examples()["tiny-cpu-1"]
    value = msgspec.to_builtins(experiment)
    value["choice"], value["devices"] = msgspec.to_builtins(choice), choice.training.world
    value["work"] |= {"batch": 8, "answer": 6, "decode_micro_batch": 4}
    value["running"] |= {"timeout_s": PATIENCE_S} | running
    asked = msgspec.convert(value, Experiment)
    return Job(make_plan(asked, "given"), asked.ppo, asked.running, seed, "gloo")


def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(tmp_path: Path):
    whole = launch(job(steps=4))
    folder = str(tmp_path)
    # The rate falls with all steps in view, so a part of a run is the same run interrupted.
    first = launch(job(steps=4, checkpoint=folder, checkpoint_every=2))
    assert [step.actor_loss for step in first.steps] == [s.actor_loss for s in whole.steps]
    for path in tmp_path.glob("step-00000004/*"):
        path.unlink()
    (tmp_path / "step-00000004").rmdir()
    again = launch(job(steps=4, checkpoint=folder))
    assert again.first_step == 2
    kept = ("reward", "kl", "actor_loss", "critic_loss", "actor_norm", "critic_norm")
    for mine, theirs in zip(again.steps, whole.steps[2:], strict=True):
        assert [getattr(mine, k) for k in kept] == [getattr(theirs, k) for k in kept]
    other = Choice(training=Layout(tensor=2), generation=Layout(tensor=2), schedule="sequential")
    (tmp_path / "step-00000004").rename(tmp_path / "later")
    moved = launch(job(other, steps=4, checkpoint=folder))
    assert moved.first_step == 2
    assert moved.steps[-1].actor_loss == pytest.approx(whole.steps[-1].actor_loss, rel=1e-3)


def test_a_checkpoint_of_another_run_is_refused_in_one_line(tmp_path: Path):
    launch(job(steps=1, checkpoint=str(tmp_path)))
    with pytest.raises(InputError, match="another seed; name another") as error:
        launch(job(seed=1, steps=1, checkpoint=str(tmp_path)))
    assert "\n" not in str(error.value)


def test_an_aligned_actor_is_read_by_transformers_and_by_us(tmp_path: Path):
    from transformers import LlamaForCausalLM

    folder = tmp_path / "aligned"
    choice = Choice(training=Layout(pipeline=2, tensor=2), generation=Layout(tensor=4))
    task = job(choice, steps=1, save_to=str(folder))
    launch(task)
    model = task.plan.actor
    loaded = LlamaForCausalLM.from_pretrained(folder).state_dict()
    read = checkpoint_weights(str(folder), model, "actor", 0)
    for tensor in tensors(model):
        stop = 0 if tensor.axis is None else tensor.shape[tensor.axis]
        assert torch.equal(read(Slice(tensor, 0, stop)), loaded[tensor.name])
        if tensor.axis is not None:
            half = read(Slice(tensor, stop // 2, stop))
            assert torch.equal(half, loaded[tensor.name].narrow(tensor.axis, stop // 2, stop // 2))
    start = random_weights(0, "actor")(Slice(tensors(model)[0], 0, model.vocabulary))
    assert not torch.equal(loaded[tensors(model)[0].name], start)  # it has learnt
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"


def test_wrong_files_are_refused(tmp_path: Path):
    model = examples()["tiny-cpu-1"].actor_model
    with pytest.raises(InputError, match="no such folder"):
        checkpoint_weights(str(tmp_path / "none"), model, "actor", 0)
    with pytest.raises(InputError, match=r"no \.safetensors files"):
        checkpoint_weights(str(tmp_path), model, "actor", 0)
    from safetensors.torch import save_file

    save_file({"model.embed_tokens.weight": torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"is \(2, 2\), the experiment's model has \(260, 64\)"):
        checkpoint_weights(str(tmp_path), model, "actor", 0)


def test_cached_decoding_equals_the_whole_forward_pass():
    """Log-probabilities noted while decoding against those of one pass over whole sequences."""
    for found in run_ranks(cached_and_whole, 2, job(steps=1)):
        cached, whole, valid = found
        assert np.abs((cached - whole) * valid).max() < 1e-5
        assert valid.sum() > 0


@pytest.mark.parametrize("stop", [True, False])
def test_decoding_on_static_buffers_gives_the_same_tokens(stop: bool):
    """What a CUDA graph captures, run step by step: left-padded prompts, tensor parallel."""
    made = job(steps=1, sampling={"stop_at_end": stop, "temperature": 0.7})
    for grown, static in run_ranks(generate_both_ways, 2, made):
        assert np.array_equal(grown[0], static[0])
        assert np.abs(grown[1] - static[1]).max() < 1e-5


def test_what_the_hybrid_engine_calls_gives_the_same_sequences():
    """Transformers' `generate` with our draws, as DeepSpeed's hybrid engine calls it on GPUs."""
    made = job(Choice(), steps=1)
    ((own, _),) = run_ranks(generate_both_ways, 1, made)
    work, tokenizer = made.plan.work, load_tokenizer("bytes")
    rows = prompts_for(made.running, tokenizer, work.prompt).ids
    order = order_of(len(rows), work.batch, 0, 0)
    ids, valid = map(torch.from_numpy, batch_of(rows, tokenizer.pad, work.prompt, order))
    prompts = Prompts(ids, valid, torch.arange(work.batch))
    model = hugging_face(made.plan.actor, "actor", random_weights(0, "actor")).eval()
    drawer = Drawer(prompts, made.running.sampling, Special(tokenizer.pad, (tokenizer.end,)), 0)
    found = generate(model.generate, prompts, work.answer, drawer)  # type: ignore[arg-type]
    assert np.array_equal(found.ids.numpy(), own[0])
    assert np.abs(found.log_probs.numpy() - own[1]).max() < 1e-5
    assert "for CUDA devices only" in told("gloo")
    assert told("nccl", wanted=False).endswith("running.hybrid_engine is false")


@pytest.mark.parametrize(
    ("changes", "backend", "message"),
    [
        ({}, "gloo", "needs CUDA devices"),
        ({}, "nccl", "captures a decode step of one stage, but the generation layout has 2"),
        ({"engine": "deepspeed"}, "nccl", "of the engine 'puzzle' only"),
    ],
)
def test_graphs_are_refused_where_nothing_can_be_captured(
    changes: dict[str, str], backend: Backend, message: str
):
    two = Layout(pipeline=2) if not changes else Layout(data=2)
    made = job(Choice(training=two, generation=two), cuda_graphs=True, **changes)
    with pytest.raises(InputError, match=message) as error:
        check_job(made._replace(backend=backend))
    assert "\n" not in str(error.value)


def test_bfloat16_trains_with_float32_main_weights():
    (found,) = run_ranks(align_jobs, 1, [job(Choice(), steps=2, dtype="bfloat16")])[0]
    assert all(np.isfinite(found.losses).ravel())
    assert all(value.dtype == np.float32 for value in found.weights.values())


HALF = {"dtype": "float16", "loss_scale": 1024.0, "loss_scale_window": 2}


@pytest.mark.parametrize(
    "layout",
    [
        Layout(pipeline=2, data=2),
        pytest.param(Layout(pipeline=2, tensor=2), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_an_infinite_gradient_skips_its_own_model_and_halves_its_scale_on_every_rank(
    layout: Layout,
):
    made = job(Choice(training=layout, generation=layout), steps=3, **HALF)
    for (found,) in run_ranks(overflow, 4, [made], 1):
        assert found.scales == [(1024.0, 1024.0), (2048.0, 512.0), (2048.0, 512.0)]
        assert found.skipped == [(0, 0), (0, 1), (0, 1)]
        actor, critic = zip(*found.weights, strict=True)
        assert critic[0] == critic[1] != critic[2]
        assert len(set(actor)) == 3


def test_merged_equals_sequential_under_loss_scaling():
    two = Layout(pipeline=2)
    kinds = [
        job(Choice(training=two, generation=two, schedule=kind), steps=2, **HALF)
        for kind in ("sequential", "merged")
    ]
    one, both = run_ranks(align_jobs, 2, kinds)[0]
    assert (one.digest, one.losses, one.norms) == (both.digest, both.losses, both.norms)
    assert all(np.array_equal(one.weights[name], both.weights[name]) for name in one.weights)
    (wide,) = run_ranks(align_jobs, 2, [job(kinds[0].plan.choice, steps=2)])[0]
    assert np.array(one.norms[0]) == pytest.approx(np.array(wide.norms[0]), rel=0.05)


def test_a_scale_doubles_after_its_window_and_is_kept_by_checkpoints(tmp_path: Path):
    done = launch(job(steps=4, checkpoint=str(tmp_path), checkpoint_every=3, **HALF))
    assert [step.actor_scale for step in done.steps] == [1024.0, 2048.0, 2048.0, 4096.0]
    for path in tmp_path.glob("step-00000004/*"):
        path.unlink()
    (tmp_path / "step-00000004").rmdir()
    again = launch(job(steps=4, checkpoint=str(tmp_path), **HALF))
    assert again.first_step == 3
    assert again.steps[-1].actor_scale == 4096.0
    assert again.steps[-1].actor_norm == done.steps[-1].actor_norm


def test_old_log_probs_of_the_training_layout_are_those_of_generation():
    ways = [
        msgspec.structs.replace(job(steps=1).ppo, old_log_probs=way)
        for way in ("generation", "training")
    ]
    jobs = [job(steps=1)._replace(ppo=ppo) for ppo in ways]
    a, b = run_ranks(align_jobs, 2, jobs)[0]
    assert a.losses[0] == pytest.approx(b.losses[0], abs=1e-5)
