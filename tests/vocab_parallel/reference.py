"""The same model trained by one process: plain torch autograd, no pipeline, no shards."""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vocab_parallel.inputs.experiment import Training
from vocab_parallel.plan.plans import Plan
from vocab_parallel.run.data import sequences
from vocab_parallel.run.train import EVALUATION_STEP
from vocab_parallel.run.weights import (
    EMBEDDING,
    OUTPUT,
    POSITION,
    Weight,
    initial,
    layer_weights,
    norm_weights,
)


class Trained(NamedTuple):
    losses: list[float]
    norms: list[float]
    weights: dict[str, Tensor]
    evaluation: float


def train_plainly(plan: Plan, training: Training, seed: int = 0) -> Trained:
    """Train as many steps in float64 on the whole global batch."""
    model = plan.model
    shape = (model.vocabulary, model.hidden)
    wanted = [Weight(EMBEDDING, shape, real=model.vocabulary)]
    wanted += [] if model.tied else [Weight(OUTPUT, shape, real=model.vocabulary)]
    wanted += [Weight(POSITION, (model.sequence, model.hidden)), *norm_weights(model, "norm_")]
    for number in range(model.layers):
        wanted += layer_weights(number, model)
    weights = {w.name: initial(w, seed).double().requires_grad_() for w in wanted}
    optimizer = torch.optim.AdamW(
        [
            {"params": [w for w in weights.values() if w.dim() > 1]},
            {"params": [w for w in weights.values() if w.dim() == 1], "weight_decay": 0.0},
        ],
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
    )
    losses, norms = [], []
    count = plan.schedule.batches * plan.batch_size * training.data_parallel
    for step in range(training.steps):
        tokens = torch.from_numpy(sequences(model, count, seed=seed, step=step))
        loss = _loss(tokens, weights, model.layers, model.heads, training.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        clip = training.clip or float("inf")
        norms.append(float(torch.nn.utils.clip_grad_norm_(weights.values(), clip)))
        optimizer.step()
        losses.append(float(loss.detach()))
    unseen = torch.from_numpy(sequences(model, count, seed=seed, step=EVALUATION_STEP))
    loss = _loss(unseen, weights, model.layers, model.heads, training.label_smoothing)
    trained = {name: w.detach() for name, w in weights.items()}
    return Trained(losses, norms, trained, float(loss.detach()))


def _loss(
    tokens: Tensor, w: dict[str, Tensor], layers: int, heads: int, smoothing: float
) -> Tensor:
    ids, labels = tokens[:, :-1], tokens[:, 1:]
    x = F.embedding(ids, w[EMBEDDING]) + w[POSITION]
    hidden = x.shape[-1:]
    for number in range(layers):
        at = f"layer{number}."
        y = F.layer_norm(x, hidden, w[at + "scale"], w[at + "shift"])
        packed = F.linear(y, w[at + "qkv"], w[at + "qkv_bias"]).unflatten(-1, (3, heads, -1))
        q, k, v = (part.transpose(1, 2) for part in packed.unbind(2))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + F.linear(out, w[at + "merge"], w[at + "merge_bias"])
        y = F.layer_norm(x, hidden, w[at + "mlp_scale"], w[at + "mlp_shift"])
        y = F.gelu(F.linear(y, w[at + "up"], w[at + "up_bias"]))
        x = x + F.linear(y, w[at + "down"], w[at + "down_bias"])
    x = F.layer_norm(x, hidden, w["norm_scale"], w["norm_shift"])
    logits = F.linear(x, w.get(OUTPUT, w[EMBEDDING]))
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)
