"""What ranks do in tests: many layouts one after the other in one set of processes."""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

import puzzle.run.train
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.plan.passes import ModelName
from puzzle.plan.reshard import BUCKET, buckets, make_reshard_plan
from puzzle.plan.roads import Pairs, training_pairs
from puzzle.plan.schedules import inference
from puzzle.plan.slices import Slice, held
from puzzle.run.baselines import measure_switches
from puzzle.run.decode import Decoding
from puzzle.run.executor import Work, execute
from puzzle.run.groups import Groups
from puzzle.run.layers import entropies
from puzzle.run.links import Directions
from puzzle.run.readers import readers_of
from puzzle.run.settings import Job, Moved, StepFigures
from puzzle.run.stage import Stage, whole_tokens
from puzzle.run.streams import Deferred, Streams
from puzzle.run.switch import Switcher
from puzzle.run.train import Trainer
from puzzle.run.weights import Store, random_weights

CPU = torch.device("cpu")
PATIENCE_S = 300.0
"""How long a rank waits for another: a machine with more to do may leave one standing for long."""


def all_logits(
    rank: int,
    report: object,
    model: Llama,
    layouts: list[Layout],
    ids: NDArray[np.int64],
    valid: NDArray[np.int64],
) -> list[NDArray[np.float32]]:
    """Return the logits of every layout, whole, computed by its pipeline in two micro-batches."""
    found: list[NDArray[np.float32]] = []
    for layout in layouts:
        groups = Groups(layout, PATIENCE_S)
        directions = Directions(PATIENCE_S, training_pairs(layout))
        store = Store(
            model, "actor", groups, random_weights(7, "actor"), torch.float32, CPU, trained=False
        )
        stage = Stage(model, "actor", groups, store.weights)
        pairs = zip(torch.from_numpy(ids).chunk(2), torch.from_numpy(valid).chunk(2), strict=True)
        batches = [whole_tokens(*pair) for pair in pairs]
        made: list[torch.Tensor] = []
        names: tuple[ModelName, ...] = ("reference",)
        schedule = inference(layout.pipeline, 2, names)
        work = Work(
            {"reference": stage},
            batches,
            lambda m, b, y, s=stage, k=made: k.append(s.logits(y)),
            {},
        )
        execute(schedule, groups, directions, work, torch.float32)
        own = (groups.place, torch.cat(made).numpy() if made else None)
        every = [own] * layout.world
        dist.all_gather_object(every, own)
        last = [(p.slice, x) for p, x in every if x is not None and p.replica == 0]
        found.append(np.concatenate([x for _, x in sorted(last, key=lambda pair: pair[0])], -1))
    return found


def switch_all(
    rank: int,
    report: object,
    model: Llama,
    pairs: list[tuple[Layout, Layout, str]],
    bucket: int = BUCKET,
) -> list[tuple[bool, bool, int]]:
    """Return per switch: every weight is right bit by bit, bytes are the plan's, most messages."""
    read, found = random_weights(3, "actor"), list[tuple[bool, bool, int]]()
    directions = Directions(PATIENCE_S, all_pairs())
    layouts = sorted({train for train, _, _ in pairs})
    made_groups = {layout: Groups(layout, PATIENCE_S) for layout in layouts}
    for train, generate, mapping in pairs:
        plan = make_reshard_plan(train, generate, model, mapping)
        groups = made_groups[train]
        store = Store(model, "actor", groups, read, torch.float32, CPU, trained=True)
        switcher = Switcher(plan, groups, directions, store.slices, bucket)
        made, counted = switcher.enter(store.detached())
        place = plan.places[rank]
        slices = held(model, "actor", generate, place.stage, place.slice)
        wanted = {part.tensor.name: read(part) for part in slices}
        same = made.keys() == wanted.keys() and all(
            torch.equal(made[name], wanted[name]) for name in wanted
        )
        exact = (counted.received, counted.sent) == (4 * plan.received(rank), 4 * plan.sent(rank))
        for move in switcher.kept:  # the very storage, no copy
            name = move.part.tensor.name
            there = store.weights[name].untyped_storage().data_ptr()
            exact &= made[name].untyped_storage().data_ptr() == there
        most = max((len(buckets(each, 4, bucket)) for each in switcher.coming.values()), default=0)
        expected = sum(len(buckets(each, 4, bucket)) for each in switcher.coming.values())
        found.append((same, exact and counted.messages == expected, most))
    return found


def all_ways(rank: int, report: object, jobs: list[Job]) -> list[tuple[Moved, ...]]:
    """Switch by the plan and by the other engines' gathers, for every job."""
    return [measure_switches(Trainer(job, CPU, readers_of(job))) for job in jobs]


class Outcome(NamedTuple):
    digest: str
    rewards: list[float]
    losses: list[tuple[float, float]]
    norms: list[tuple[float, float]]
    weights: dict[str, NDArray[np.float32]]


def align_jobs(rank: int, report: object, jobs: list[Job]) -> list[Outcome]:
    """Run PPO jobs one after the other; return losses and both models' whole weights."""
    return [_align(job) for job in jobs]


def all_pairs() -> Pairs:
    """Return every pair of the ranks that there are."""
    world = dist.get_world_size()
    return frozenset((a, b) for a in range(world) for b in range(world) if a != b)


def open_all_pairs(rank: int, report: object) -> list[tuple[int, int]]:
    """Make the connections of every pair of ranks; return those that this rank has."""
    return sorted(Directions(PATIENCE_S, all_pairs()).ways)


class Shared(Directions):
    """All messages to higher ranks in one group, all to lower ones in another, as once."""

    def __init__(self, timeout_s: float, pairs: Pairs) -> None:
        up, down = dist.new_group(), dist.new_group()
        assert isinstance(up, dist.ProcessGroup)
        assert isinstance(down, dist.ProcessGroup)
        self.ways = {pair: up if pair[0] < pair[1] else down for pair in pairs}


def align_on_shared_ways(rank: int, report: object, jobs: list[Job]) -> list[Outcome]:
    """Run PPO jobs whose pairs of ranks share their groups."""
    puzzle.run.train.Directions = Shared  # type: ignore[misc]
    return [_align(job) for job in jobs]


class Early:
    """Posts the switch's messages at once and waits for them when it is taken."""

    ahead = True

    def __init__(self) -> None:
        self.began = 0

    def arrange(self, start, finish):
        self.began += 1
        begun = start()
        return Deferred(lambda: finish(begun))


def align_with_switch_ahead(
    rank: int, report: object, jobs: list[Job]
) -> list[tuple[Outcome, int]]:
    """Run PPO jobs whose switches begin as soon as the actor is updated; count them."""
    found: list[tuple[Outcome, int]] = []
    for job in jobs:
        streams = Early()
        outcome = _align(job, streams)
        found.append((outcome, streams.began))
    return found


def _align(job: Job, streams: Streams | None = None) -> Outcome:
    trainer = Trainer(job, CPU, readers_of(job), streams)
    steps = [trainer.step(number) for number in range(job.running.steps)]
    own = {
        f"{model}/{name}": (
            part,
            (store.weights if store.share else store.main)[name].detach().numpy(),
        )
        for model in ("actor", "critic")
        for store in [trainer.stores[model]]
        for name, part in store.slices.items()
    }
    weights = _whole(own, job.plan.world)
    return Outcome(
        trainer.digest.hexdigest(),
        [step.reward for step in steps],
        [(step.actor_loss, step.critic_loss) for step in steps],
        [(step.actor_norm, step.critic_norm) for step in steps],
        weights,
    )


def _whole(
    own: dict[str, tuple[Slice, NDArray[Any]]], world: int
) -> dict[str, NDArray[np.float32]]:
    """Return whole tensors from all ranks' slices."""
    every = [own] * world
    dist.all_gather_object(every, own)
    pieces: dict[str, dict[int, NDArray[Any]]] = {}
    axes: dict[str, int | None] = {}
    for there in every:
        for name, (part, value) in there.items():
            pieces.setdefault(name, {})[part.start], axes[name] = value, part.tensor.axis
    return {
        name: parts[0]
        if axes[name] is None
        else np.concatenate([parts[s] for s in sorted(parts)], axes[name])
        for name, parts in pieces.items()
    }


class Learnt(NamedTuple):
    """Of one job: its sequences, its steps' figures, each update's whole gradient by model."""

    digest: str
    steps: list[StepFigures]
    gradients: list[dict[str, NDArray[Any]]]
    """Flat, before clipping, in the order of updates."""


def learn_jobs(rank: int, report: object, jobs: list[Job]) -> list[Learnt]:
    """Run PPO jobs one after the other; return what was learnt from, and the gradients."""
    return [_learn(job) for job in jobs]


def _learn(job: Job) -> Learnt:
    trainer = Trainer(job, CPU, readers_of(job))
    seen: dict[str, list[dict[str, tuple[Slice, NDArray[Any]]]]] = {n: [] for n in trainer.updates}
    for name, update in trainer.updates.items():
        step = update.step

        def noting(number: int, name=name, update=update, step=step) -> None:
            slices = update.store.slices
            shapes = {n: w.shape for n, w in update.store.weights.items()}
            update.work and update.work.wait()
            seen[name].append(
                {n: (slices[n], p.view(shapes[n]).numpy().copy()) for n, p in update.parts.items()}
            )
            step(number)

        update.step = noting  # type: ignore[method-assign]
    steps = [trainer.step(number) for number in range(job.running.steps)]
    gradients = [
        {
            name: np.concatenate([x.ravel() for _, x in sorted(whole.items())])
            for name in seen
            for whole in [_whole(seen[name][number], job.plan.world)]
        }
        for number in range(len(seen["actor"]))
    ]
    return Learnt(trainer.digest.hexdigest(), steps, gradients)


class Scaled(NamedTuple):
    """Of one rank after each step: both loss scales, updates left out, a digest of weights."""

    scales: list[tuple[float, float]]
    skipped: list[tuple[int, int]]
    weights: list[tuple[float, float]]


def overflow(rank: int, report: object, jobs: list[Job], at: int) -> list[Scaled]:
    """Run jobs in which one rank's critic has one infinite gradient in step `at`."""
    return [_overflow(rank, job, at) for job in jobs]


def _overflow(rank: int, job: Job, at: int) -> Scaled:
    trainer, found = Trainer(job, CPU, readers_of(job)), Scaled([], [], [])
    critic = trainer.updates["critic"]
    reduce = critic.reduce

    def spoilt() -> None:
        if rank == job.plan.world - 1:
            grad = list(trainer.stores["critic"].weights.values())[-1].grad
            assert grad is not None
            grad.view(-1)[0] = torch.inf
        reduce()

    for number in range(job.running.steps):
        critic.reduce = spoilt if number == at else reduce  # type: ignore[method-assign]
        trainer.step(number)
        two = [trainer.updates[name] for name in ("actor", "critic")]
        found.scales.append((two[0].scale.value, two[1].scale.value))
        found.skipped.append((two[0].skipped, two[1].skipped))
        sums = [sum(float(v.double().sum()) for v in u.store.main.values()) for u in two]
        found.weights.append((sums[0], sums[1]))
    return found


def generate_both_ways(rank: int, report: object, job: Job) -> list[tuple[NDArray[np.int64], Any]]:
    """Return sequences and log-probabilities decoded with a growing mask and on static buffers."""
    found: list[tuple[NDArray[np.int64], Any]] = []
    ways: tuple[Decoding, ...] = ("grown", "static")
    for way in ways:
        trainer = Trainer(job, CPU, readers_of(job))
        trainer.sampler.decoding = way
        trainer._generate(0)
        found.append((trainer.answers.ids.numpy(), trainer.answers.log_probs.numpy()))
    return found


class Noted(NamedTuple):
    """What one replica generated, and the whole logits of its answers by one plain pass."""

    ids: NDArray[np.int64]
    valid: NDArray[np.int64]
    log_probs: NDArray[Any]
    learnt: NDArray[Any]
    """Log-probabilities by the pass that training makes."""
    entropies: NDArray[Any]
    logits: NDArray[Any]
    ended: NDArray[np.bool_]


def generated(rank: int, report: object, job: Job) -> Noted:
    """Generate a step's answers; return what was noted, and what one plain pass says of them."""
    trainer = Trainer(job, CPU, readers_of(job))
    trainer._generate(0)
    answers, stage = trainer.answers, _whole_stage(job, trainer.dtype)
    drawn = answers.drawn(job.running.sampling)
    start = job.plan.work.prompt - 1
    with torch.no_grad():
        y = stage.forward(None, whole_tokens(answers.ids, answers.valid))
        logits = stage.logits(y)[:, start:-1]
        learnt, entropies = stage.next_entropies(y, answers.ids, drawn)
    found = (answers.ids, answers.valid, answers.log_probs, learnt[:, start:], entropies[:, start:])
    ended = answers.ended(start + 1, trainer.special)
    return Noted(*(x.numpy() for x in (*found, logits, ended)))


def _whole_stage(job: Job, dtype: torch.dtype) -> Stage:
    """Return the actor as one stage, whatever the ranks are."""
    model, layout = job.plan.actor, Layout()
    groups = Groups.__new__(Groups)  # a place of its own
    groups.layout, groups.places, groups.me = layout, tuple(layout.places()), 0
    groups.place, groups.tensor, groups.data, groups.model = layout.place(0), None, None, None
    read = random_weights(job.seed, "actor")
    store = Store(model, "actor", groups, read, dtype, CPU, trained=False)
    return Stage(model, "actor", groups, store.weights)


def slice_entropies(
    rank: int, report: object, logits: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return entropies, and this rank's slice of the gradient of the sum of their squares."""
    group = dist.group.WORLD
    own = torch.from_numpy(logits).chunk(dist.get_world_size(), -1)[rank].clone()
    own.requires_grad_(True)
    found = entropies(own, group)
    found.square().sum().backward()
    assert own.grad is not None
    return found.detach().numpy(), own.grad.numpy()


def cached_and_whole(
    rank: int, report: object, job: Job
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return the answers' log-probabilities from decoding and from one pass, and which are real."""
    trainer = Trainer(job, CPU, readers_of(job))
    trainer._generate(0)
    answers = trainer.answers
    start = job.plan.work.prompt
    cached = answers.log_probs
    stage = _whole_stage(job, torch.float32)
    with torch.no_grad():
        y = stage.forward(None, whole_tokens(answers.ids, answers.valid))
        whole = stage.next_log_probs(y, answers.ids)[:, start - 1 :]
    return cached.numpy(), whole.numpy(), answers.valid[:, start:].numpy()
