"""The two layers as modules: real ranks beside plain torch, and the README's example."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from common.errors import InputError
from common.ranks import run_ranks
from vocab_parallel.run.layers import VocabParallelCrossEntropy, VocabParallelEmbedding
from vocab_parallel.run.output import Rules

pytestmark = pytest.mark.timeout(400)  # real ranks: a busy machine takes long to start them
Array = NDArray[np.float64]
VOCABULARY, HIDDEN, TOKENS = 53, 12, (3, 7)
RULES = [
    Rules("vocab-1"),
    Rules("vocab-2"),
    Rules("vocab-2", smoothing=0.1, block=4),
    Rules("vocab-1", keep="nothing", block=5),
    Rules("vocab-1", softcap=1.5),
    Rules("vocab-2", softcap=1.5),
    Rules("vocab-1", softcap=1.5, keep="nothing"),
    Rules("vocab-2", softcap=1.5, keep="nothing"),
    Rules("vocab-2-published", softcap=1.5, keep="logits"),
]


class Found(NamedTuple):
    losses: Array
    d_input: Array
    d_output: Array
    dx: Array


def problem() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    table = torch.randn(VOCABULARY, HIDDEN, generator=generator, dtype=torch.float64)
    matrix = torch.randn(VOCABULARY, HIDDEN, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, VOCABULARY, TOKENS, generator=generator)
    labels = torch.randint(0, VOCABULARY, TOKENS, generator=generator)
    labels[0, 2] = -100
    gamma = torch.rand(TOKENS, generator=generator, dtype=torch.float64)
    return table, matrix, ids, labels, gamma


def plainly(rules: Rules) -> Found:
    table, matrix, ids, labels, gamma = problem()
    table.requires_grad_()
    matrix.requires_grad_()
    x = F.embedding(ids, table).tanh()
    x.retain_grad()
    logits = x @ matrix.T
    if rules.softcap:
        logits = rules.softcap * torch.tanh(logits / rules.softcap)
    losses = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=rules.smoothing
    ).view(TOKENS)
    losses.backward(gamma)
    assert x.grad is not None
    assert table.grad is not None
    assert matrix.grad is not None
    return Found(*(one.detach().numpy() for one in (losses, table.grad, matrix.grad, x.grad)))


def sharded(rank: int, report: object) -> list[Found]:
    """Return what every rank's modules give together, for each of the rules."""
    table, matrix, ids, labels, gamma = problem()
    found: list[Found] = []
    for rules in RULES:
        embedding = VocabParallelEmbedding(VOCABULARY, HIDDEN, dtype=torch.float64)
        head = VocabParallelCrossEntropy(VOCABULARY, HIDDEN, rules=rules, dtype=torch.float64)
        embedding.load_rows(table)
        head.load_rows(matrix)
        x = embedding(ids).tanh()
        x.retain_grad()
        losses = head(x, labels)
        losses.backward(gamma)
        half = head.S(x, labels)
        dx, dw = head.T(half, gamma)
        assert x.grad is not None
        torch.testing.assert_close(dx.view_as(x.grad), x.grad)
        assert head.weight.grad is not None
        torch.testing.assert_close(dw, head.weight.grad)
        whole = [joined(embedding), joined(head)]
        found.append(Found(*(one.detach().numpy() for one in (losses, *whole, x.grad))))
    return found


def joined(module: VocabParallelEmbedding | VocabParallelCrossEntropy) -> Tensor:
    gradient = module.weight.grad
    assert gradient is not None
    assert not gradient[module.real :].any()
    parts = [torch.empty_like(gradient) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, gradient)
    return torch.cat(parts)[:VOCABULARY]


def test_losses_and_gradients_are_those_of_plain_torch() -> None:
    every = run_ranks(sharded, 4, timeout_s=200.0)
    for rules, *ours in zip(RULES, *every, strict=True):
        expected = plainly(rules)
        for one in ours:
            for mine, theirs in zip(one, expected, strict=True):
                np.testing.assert_allclose(mine, theirs, 1e-10, 1e-12, err_msg=str(rules))


def refusals(rank: int, report: object) -> list[str]:
    embedding = VocabParallelEmbedding(VOCABULARY, HIDDEN)
    head = VocabParallelCrossEntropy(VOCABULARY, HIDDEN)
    x, said = torch.zeros(2, HIDDEN), []
    labels = torch.tensor([1, 2])
    loss = head(x.requires_grad_(), labels).sum()
    loss.backward(retain_graph=True)
    for attempt in (
        lambda: embedding(torch.tensor([0, VOCABULARY])),
        lambda: embedding(torch.tensor([-100])),
        lambda: head(x, torch.tensor([VOCABULARY, 0])),
        lambda: head(x, torch.tensor([-1, 0])),
        lambda: VocabParallelCrossEntropy(VOCABULARY, HIDDEN + 1, weight=head.weight),
        lambda: loss.backward(),
    ):
        try:
            attempt()
        except InputError as error:
            said.append(str(error))
    return said


def test_ids_labels_and_weights_that_do_not_belong_are_refused() -> None:
    for said in run_ranks(refusals, 2, timeout_s=200.0):
        assert [re.split(r"[,:]", text)[0] for text in said] == [
            "id 53 is none of a vocabulary of 53",
            "id -100 is none of a vocabulary of 53",
            "label 53 is none of a vocabulary of 53",
            "label -1 is none of a vocabulary of 53",
            "weight is (28",
            "backward was called twice",
        ]


def example() -> str:
    """Return the README's example of the two modules."""
    readme = Path(__file__).parents[2] / "vocab_parallel/README.md"
    (found,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
        if "VocabParallelCrossEntropy" in block
    ]
    return found


def run_example(rank: int, report: object, text: str) -> list[float]:
    names: dict[str, object] = {"__name__": "example"}
    exec(text, names)
    losses = names["losses"]
    assert isinstance(losses, list)
    return losses


def test_the_readmes_example_trains_alike_on_one_and_on_four_ranks() -> None:
    text = example()
    assert len(text.splitlines()) <= 30
    (alone,) = run_ranks(run_example, 1, text, timeout_s=200.0)
    for found in run_ranks(run_example, 4, text, timeout_s=200.0):
        assert found == pytest.approx(alone, rel=1e-9)
    assert alone[-1] < alone[0]
