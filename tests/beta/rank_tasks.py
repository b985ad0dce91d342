"""What ranks do in tests: serve requests stage by stage, as a group's workers do."""

import torch
import torch.distributed as dist

from beta.inputs.shapes import SHAPES
from beta.run.exchange import Exchange
from beta.run.stage import Shard, make_stage

SHAPE, CPU = SHAPES["bert-micro"], torch.device("cpu")
Asked = list[tuple[int, list[int], int]]
"""(model, tokens, first stage before which it was dropped)."""


def serve(rank: int, report: object, op: int, pp: int, asked: Asked) -> list[list[float]]:
    """Carry out requests one after the other; the last stage's first part returns the logits."""
    exchange = Exchange(rank, op, pp, CPU)
    return _served(rank, exchange, op, pp, asked)


def receive_ahead(rank: int, report: object, shared: bool) -> float:
    """Have the middle stage take a second piece of work before the last one took the first.

    `shared`: all messages on the group of all ranks, as was once done.
    """
    exchange, first, second = Exchange(rank, 1, 3, CPU), torch.zeros(1), torch.zeros(1)
    told = dist.new_group([1, 2])
    if shared:
        exchange.before = exchange.after = dist.group.WORLD
    if rank == 0:
        exchange.send(torch.ones(1))
        exchange.send(torch.full((1,), 2.0))
        for sending in exchange.sending:
            sending.work.wait()
        return 0.0
    if rank == 2:
        dist.recv(torch.zeros(1), 1, group=told)
    exchange.receive(first)
    if rank == 1:
        exchange.send(first)
    exchange.receive(second)
    if rank == 1:
        dist.send(torch.zeros(1), 2, group=told)
        exchange.send(second)
        for sending in exchange.sending:
            sending.work.wait()
    return float(first + second)


@torch.inference_mode()
def _served(rank: int, exchange: Exchange, op: int, pp: int, asked: Asked) -> list[list[float]]:
    stage, part = divmod(rank, op)
    total = exchange.sum if op > 1 else (lambda x: x)
    models = {
        seed: make_stage(SHAPE, seed, Shard(stage, pp, part, op), total=total)
        for seed in sorted({seed for seed, *_ in asked})
    }
    found = list[list[float]]()
    for seed, tokens, dropped in asked:
        if stage > dropped:  # the stage before sent nothing
            continue
        x = torch.tensor([tokens]) if not stage else models[seed].activations(1, len(tokens))
        if stage:
            exchange.receive(x)
        if stage == dropped:
            continue
        y = models[seed](x)
        if stage < pp - 1:
            exchange.send(y)
        elif not part:
            found.append(y[0].tolist())
    return found
