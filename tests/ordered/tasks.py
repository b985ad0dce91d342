"""Small programs of messages and collectives, for the tests of the ordered group itself."""

import time

import torch
import torch.distributed as dist

SIZE = 4


def collectives(rank: int, report: object) -> list[float]:
    """Use every collective and return what they gave."""
    summed, told = torch.full((SIZE,), float(rank)), torch.full((SIZE,), float(rank))
    dist.all_reduce(summed)
    dist.broadcast(told, 1)
    parts = [torch.empty(1) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, torch.tensor([float(rank)]))
    objects: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": number} for number in range(len(objects))]
    own: list[object] = [None]
    dist.scatter_object_list(own, objects if rank == 0 else None)
    dist.gather_object(own[0], objects if rank == 0 else None)
    assert own == [{"rank": rank}]
    return [float(summed[0]), float(told[0]), *(float(part) for part in parts)]


def both_receive_first(rank: int, report: object) -> float:
    """Warm both ways, then receive before sending, each from the other."""
    return _both_receive_first(rank, [dist.group.WORLD, dist.group.WORLD])


def both_receive_first_in_two_groups(rank: int, report: object) -> float:
    """Do the same with a group for each direction."""
    return _both_receive_first(rank, [dist.new_group(), dist.new_group()])


def _both_receive_first(rank: int, groups: list) -> float:
    other = 1 - rank
    for source in (0, 1):
        token, group = torch.zeros(1), groups[source]
        dist.send(token, other, group) if source == rank else dist.recv(token, other, group)
    there, mine = torch.empty(SIZE), torch.full((SIZE,), float(rank))
    kind, batch = "F", rank
    works = [
        dist.irecv(there, other, group=groups[other]),
        dist.isend(mine, other, group=groups[rank]),
    ]
    for work in works:
        assert work is not None, (kind, batch)
        work.wait()
    return float(there[0])


def ring_of_receives(rank: int, report: object) -> float:
    """Receive from the rank before, then send to the rank after, on one group; wait for both."""
    world = dist.get_world_size()
    before, after = (rank - 1) % world, (rank + 1) % world
    for source in range(world):
        token = torch.zeros(1)
        if source == rank:
            dist.send(token, after)
        elif source == before:
            dist.recv(token, before)
    there, mine = torch.empty(SIZE), torch.full((SIZE,), float(rank))
    for work in (dist.irecv(there, before), dist.isend(mine, after)):
        assert work is not None
        work.wait()
    return float(there[0])


def one_batch(rank: int, report: object) -> float:
    """Receive and send in one batch of one group."""
    other = 1 - rank
    there, mine = torch.empty(SIZE), torch.full((SIZE,), float(rank))
    operations = [dist.P2POp(dist.irecv, there, other), dist.P2POp(dist.isend, mine, other)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    return float(there[0])


def first_use_in_two_orders(rank: int, report: object) -> None:
    """Use two groups first in unlike orders: each connects its ranks, which holds their hosts."""
    groups = [dist.new_group(), dist.new_group()]
    for number in (0, 1) if rank else (1, 0):
        dist.all_reduce(torch.zeros(1), group=groups[number], async_op=True)


def send_before_its_receive(rank: int, report: object) -> list[bool]:
    """Say whether a small send was over before the other rank came to its receive, and after."""
    token, there = torch.zeros(SIZE), dist.new_group()
    if rank:
        dist.barrier(there)
        dist.barrier(there)  # the other has looked
        dist.recv(token, 0)
        return []
    work = dist.isend(token, 1)
    assert work is not None
    dist.barrier(there)
    before = work.is_completed()
    dist.barrier(there)
    work.wait()
    return [before, work.is_completed()]


def compute_long(rank: int, report: object) -> float:
    """Let the others wait for a rank that works: no stall."""
    if rank == 1:
        time.sleep(1.0)
    x = torch.ones(1)
    dist.all_reduce(x)
    return float(x)


def fail(rank: int, report: object) -> None:
    """Fail on one rank while the other waits."""
    if rank == 1:
        raise ZeroDivisionError("of no use")
    dist.all_reduce(torch.zeros(1))
