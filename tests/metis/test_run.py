"""Training by a plan on real gloo ranks equals training in one process, in float64 to 1e-9."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from common.errors import InputError
from common.ranks import run_ranks
from metis.run import Training, launch
from metis.run.data import batch
from metis.run.layout import position
from metis.run.model import initial
from metis.run.train import Trainer
from metis.run.weights import weights
from metis.simulate import one_forward_one_backward
from tests.metis.toy_plans import MODEL, make_plan

pytestmark = pytest.mark.timeout(300)

FLOAT64 = Training(dtype="float64", timeout_s=60)
STEPS = 3


def plain_loss(model, w, tokens):
    """The mean cross entropy of the whole model, written without any of the code under test."""
    x = w[0, "token"][tokens[:, :-1]] + w[0, "position"]
    size = model.hidden_size
    for layer in range(1, model.layers - 1):
        normed = F.layer_norm(x, (size,), w[layer, "scale"], w[layer, "shift"])
        q, k, v = (
            torch.einsum("nth,adh->natd", normed, w[layer, "qkv"][i])
            + w[layer, "qkv_bias"][i][None, :, None]
            for i in range(3)
        )
        scores = q @ k.transpose(2, 3) / (size // model.heads) ** 0.5
        future = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        x = x + torch.einsum("natd,had->nth", mixed, w[layer, "merge"]) + w[layer, "merge_bias"]
        normed = F.layer_norm(x, (size,), w[layer, "mlp_scale"], w[layer, "mlp_shift"])
        wide = F.gelu(normed @ w[layer, "up"].T + w[layer, "up_bias"])
        x = x + wide @ w[layer, "down"].T + w[layer, "down_bias"]
    last = model.layers - 1
    x = F.layer_norm(x, (size,), w[last, "scale"], w[last, "shift"])
    return F.cross_entropy((x @ w[last, "output"].T).flatten(0, 1), tokens[:, 1:].flatten())


def plain_training(model, training, *, seed=0, steps=STEPS):
    """Losses, first gradients and final weights of training in this process on whole weights."""
    w = {
        (layer, name): initial(model, layer, name, seed).double().requires_grad_()
        for layer in range(model.layers)
        for name in weights(model, layer)
    }
    plain = ("scale", "shift", "bias")
    groups = [
        {
            "params": [x for (_, name), x in w.items() if name.endswith(plain) == exempt],
            "weight_decay": 0.0 if exempt else training.weight_decay,
        }
        for exempt in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=training.learning_rate)
    losses, first = [], None
    for step in range(steps):
        tokens = torch.from_numpy(batch(model, model.global_batch, seed=seed, step=step))
        loss = plain_loss(model, w, tokens)
        optimizer.zero_grad()
        loss.backward()
        first = first or {key: x.grad.clone() for key, x in w.items()}
        if training.clip:
            torch.nn.utils.clip_grad_norm_(w.values(), training.clip)
        optimizer.step()
        losses.append(loss.item())
    return losses, first, w


@pytest.fixture(scope="module")
def expected():
    return plain_training(MODEL, FLOAT64)


def train_and_tell(rank, report, plan, training, steps):
    """One rank's losses, first gradients and final weights by (layer, name)."""
    trainer = Trainer(plan, rank, training=training, seed=0, device=torch.device("cpu"))
    first = {}

    def named():
        for number, layer in enumerate(trainer.layers, trainer.stage.first_layer):
            for name, parameter in layer.named_parameters():
                yield (number, name), parameter

    def keep(*_):
        for key, parameter in named():
            first.setdefault(key, parameter.grad.numpy().copy())

    trainer.optimizer.register_step_pre_hook(keep)
    done = [trainer.step(number) for number in range(steps)]
    last = {key: parameter.detach().numpy() for key, parameter in named()}
    return [step.loss for step in done], [step.gradient_norm for step in done], first, last


def part_of(full, plan, rank, layer, name):
    """The slice of a full weight that a rank must hold."""
    place = position(plan, rank)
    split = weights(plan.model, layer)[name].split
    full = full.detach().numpy()
    if split is None:
        return full
    return np.array_split(full, plan.stages[place.stage].tp, axis=split)[place.slice]


PLANS = {
    "one rank": ([(1, 1, 5, (4,))], 2),
    "pp2": ([(1, 1, 2, (4,)), (1, 1, 3, (4,))], 2),
    "dp2": ([(2, 1, 5, (2, 2))], 2),
    "dp2 with 3+1 samples": ([(2, 1, 5, (3, 1))], 2),
    "tp2": ([(1, 2, 5, (4,))], 2),
    "tp4, vocabulary of 11": ([(1, 4, 5, (8,))], 1),
    "pp3, uneven layers, 8 micro-batches": ([(1, 1, 1, (1,)), (1, 1, 3, (1,)), (1, 1, 1, (1,))], 8),
    "dp2 then tp2": ([(2, 1, 3, (2, 2)), (1, 2, 2, (4,))], 2),
    "tp2 then uneven dp2": ([(1, 2, 2, (4,)), (2, 1, 3, (1, 3))], 2),
    "dp3 then one": ([(3, 1, 2, (1, 2, 1)), (1, 1, 3, (4,))], 2),
    "one, tp2, one": ([(1, 1, 1, (2,)), (1, 2, 2, (2,)), (1, 1, 2, (2,))], 4),
    "uneven dp2 both sides": ([(2, 1, 2, (3, 1)), (2, 1, 3, (1, 3))], 2),
}


@pytest.mark.parametrize("name", PLANS)
def test_losses_gradients_and_weights_equal_one_process(name, expected):
    stages, batches = PLANS[name]
    plan = make_plan(stages, batches=batches)
    told = run_ranks(train_and_tell, plan.world_size, plan, FLOAT64, STEPS, timeout_s=60)
    losses, gradients, final = expected
    norm = sum(grad.square().sum() for grad in gradients.values()).sqrt().item()
    held = set()
    for rank, (rank_losses, norms, first, last) in enumerate(told):
        assert rank_losses == pytest.approx(losses, rel=1e-9, abs=0)
        assert norms[0] == pytest.approx(norm, rel=1e-9, abs=0)
        for (layer, weight), value in first.items():
            wanted = part_of(gradients[layer, weight], plan, rank, layer, weight)
            np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-9 * norm)
        for (layer, weight), value in last.items():
            wanted = part_of(final[layer, weight], plan, rank, layer, weight)
            np.testing.assert_allclose(value, wanted, rtol=1e-9, atol=1e-9)
        held |= last.keys()
    assert held == final.keys()


def test_clipping_scales_the_gradient_of_the_whole_model():
    training = msgspec.structs.replace(FLOAT64, clip=0.5)
    losses, _, final = plain_training(MODEL, training)
    plan = make_plan([(2, 1, 2, (3, 1)), (1, 2, 3, (4,))])
    told = run_ranks(train_and_tell, plan.world_size, plan, training, STEPS, timeout_s=60)
    for rank, (rank_losses, norms, _, last) in enumerate(told):
        assert norms[0] > 0.5
        assert rank_losses == pytest.approx(losses, rel=1e-6)
        for (layer, weight), value in last.items():
            wanted = part_of(final[layer, weight], plan, rank, layer, weight)
            # torch adds 1e-6 to the norm that it divides by
            np.testing.assert_allclose(value, wanted, atol=1e-5)


def test_launch_measures_every_stage_and_learns(tmp_path):
    model = msgspec.structs.replace(MODEL, hidden_size=32, sequence_length=16)
    plan = make_plan([(2, 1, 2, (3, 1)), (1, 1, 3, (4,))], model=model)
    seen = []
    result = launch(
        plan,
        steps=12,
        out=tmp_path / "run",
        training=Training(learning_rate=1e-2, timeout_s=60),
        on_step=lambda step, loss: seen.append((step, loss)),
    )
    assert [step for step, _ in seen] == list(range(12))
    assert [loss for _, loss in seen] == list(result.losses)
    assert result.losses[0] == pytest.approx(np.log(11), rel=0.05)
    assert result.losses[-1] < result.losses[0] - 0.3
    assert len(result.iteration_ms) == 12
    for stage in result.stages:
        assert 0 < stage.forward_ms < stage.measured_ms < result.median_iteration_ms
        assert stage.update_ms > 0
        assert (stage.predicted_ms, stage.peak_memory_mb) == (7.0, None)
    assert (result.predicted_iteration_ms, result.world_size, result.scaled) == (42.0, 3, False)
    assert (
        msgspec.json.decode((tmp_path / "run/run.json").read_bytes(), type=type(result)) == result
    )


def test_measured_timeline_follows_the_order_that_is_simulated():
    plan = make_plan([(1, 1, 2, (1,)), (1, 1, 1, (1,)), (1, 1, 2, (1,))], batches=8)
    timeline = launch(plan, steps=2, training=Training(timeout_s=60)).timeline
    end = {(item.stage, item.kind, item.batch): item.end_ms for item in timeline.passes}
    for stage in range(3):
        passes = [item for item in timeline.passes if item.stage == stage]
        assert [(item.kind, item.batch) for item in passes] == one_forward_one_backward(
            stage, stages=3, batches=8
        )
        for before, after in pairwise(passes):
            assert before.end_ms <= after.start_ms
        for item in passes:
            neighbour = (stage - 1 if item.kind == "F" else stage + 1, item.kind, item.batch)
            # Ranks start their clocks on leaving a barrier, not at the same instant.
            assert item.start_ms >= end.get(neighbour, 0.0) - 5.0


def test_same_seed_gives_the_same_losses_and_another_seed_others():
    plan = make_plan([(1, 1, 2, (4,)), (1, 1, 3, (4,))])
    runs = [
        launch(plan, steps=2, seed=seed, training=Training(timeout_s=60)).losses
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_widths_can_be_replaced_and_the_result_says_so():
    plan = make_plan([(1, 1, 5, (4,))])
    training = Training(hidden_size=8, heads=2, vocabulary=5, timeout_s=60)
    result = launch(plan, steps=1, training=training)
    assert result.scaled
    assert (result.model.hidden_size, result.model.layers) == (8, 5)
    assert result.losses[0] == pytest.approx(np.log(5), rel=0.05)


@pytest.mark.parametrize(
    ("stages", "options", "says"),
    [
        ([(1, 3, 5, (4,))], {}, "tp 3 does not divide the model's 4 heads"),
        ([(1, 1, 5, (4,))], {"world_size": 2}, "the plan needs 1 ranks, but the world size is 2"),
        ([(32, 1, 5, (1,) * 32)], {}, "the plan needs 32 ranks, but at most 16 CPU processes"),
        ([(1, 1, 5, (4,))], {"backend": "nccl"}, "the plan needs 1 GPUs, but this machine has 0"),
        ([(1, 1, 5, (4,))], {"steps": 0}, "steps is 0, expected 1 or more"),
        ([(1, 1, 4, (4,))], {}, "the stages hold 4 of 5 layers"),
        ([(1, 1, 5, (4,))], {"training": Training(tokens="no.npy")}, "no.npy: no such file"),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(stages, options, says, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    samples = sum(stages[0][3])
    model = msgspec.structs.replace(MODEL, global_batch=2 * samples)
    with pytest.raises(InputError) as error:
        launch(make_plan(stages, model=model), **options)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_tokens_of_a_file_are_trained_on(tmp_path):
    path = tmp_path / "ids.npy"
    np.save(path, np.tile(np.arange(4, dtype=np.uint16), 50))
    training = Training(tokens=str(path), learning_rate=1e-2, timeout_s=60)
    result = launch(make_plan([(1, 1, 5, (4,))]), steps=15, training=training)
    assert result.losses[-1] < 1.0  # each token has one successor


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (np.arange(3), "3 ids are too few for sequences of 6"),
        (np.arange(50), "reach from 0 to 49, but the vocabulary has 11"),
        (np.ones((2, 9)), "expected one row of ids"),
    ],
)
def test_bad_tokens_are_the_users_mistake(ids, says, tmp_path):
    np.save(tmp_path / "ids.npy", ids)
    with pytest.raises(InputError, match=says):
        launch(make_plan([(1, 1, 5, (4,))]), training=Training(tokens=str(tmp_path / "ids.npy")))
