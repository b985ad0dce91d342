"""What a layer's forward pass really keeps is what the plan counts, and its gradients are right."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vocab_parallel.inputs.experiment import Experiment, Pipeline, Training
from vocab_parallel.inputs.model import Model
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.run.elementwise import Gated, Rotated, bent
from vocab_parallel.run.model import Stage
from vocab_parallel.run.weights import Store
from vocab_parallel.simulate.activations import kept_bytes

SIZES: dict[str, Any] = {"hidden": 128, "sequence": 64, "vocabulary": 100, "heads": 4}
LLAMA: dict[str, Any] = {"norm": "rms", "biases": "none", "positions": "rope", "gated": True}
MODELS: dict[str, dict[str, Any]] = {
    "gpt": {"positions": "learned"},
    "rope": {"positions": "rope"},
    "llama": {**LLAMA, "kv_heads": 2, "ffn": 448, "activation": "silu"},
    "one head each": {**LLAMA, "ffn": 448, "activation": "silu"},
    "gemma3": {
        **LLAMA,
        "kv_heads": 2,
        "head_dim": 64,
        "ffn": 512,
        "norms": 4,
        "qk_norm": True,
        "activation": "gelu_tanh",
    },
}


def kept(model: Model, layers: int) -> int:
    """Return the bytes of all storages that a stage's forward pass keeps for its backward pass."""
    stage = Stage(
        model,
        Store(torch.float32, torch.device("cpu"), 0),
        layers=range(layers),
        first=False,
        last=False,
    )
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        return held.setdefault(tensor.untyped_storage().data_ptr(), tensor)

    x_NTH = torch.randn(2, model.sequence, model.hidden, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        stage.forward(x_NTH)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_keeps_what_the_plan_counts(name: str) -> None:
    model = Model(**SIZES, **MODELS[name], layers=1)
    experiment = Experiment(
        name="kept",
        model=model,
        pipeline=Pipeline(ranks=1, batches=1, batch_size=2),
        training=Training(dtype="float32"),
    )
    plan = make_plan(experiment, "baseline")
    planned = kept_bytes(plan, 0) * 34 / plan.machine.activation_bytes
    if model.positions == "learned":
        planned -= 2 * 2 * model.sequence * model.hidden  # masks of dropout, which a run has not
    found = kept(model, 3) - kept(model, 2)
    assert 1 <= found / planned < 1.01  # beside it statistics of norms and softmax


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
def test_gates_are_those_of_autograd(activation: str) -> None:
    up, gate = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    torch.testing.assert_close(Gated.apply(up, gate, activation), up * bent(gate, activation))
    assert torch.autograd.gradcheck(lambda a, b: Gated.apply(a, b, activation), (up, gate))


@pytest.mark.parametrize("layer", [0, 1])
def test_rotations_are_turned_back(layer: int) -> None:
    model = Model(**SIZES, layers=2, positions="rope", windows=(0, 8), rope_local_theta=100.0)
    x = torch.randn(1, 2, 5, 8, dtype=torch.float64, requires_grad=True)
    turned = Rotated.apply(x, model, layer)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert not torch.equal(turned[:, :, 1:], x[:, :, 1:])
    assert torch.autograd.gradcheck(lambda one: Rotated.apply(one, model, layer), (x,))
