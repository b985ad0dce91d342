"""One rank's training by a plan: its stages and shards, its passes, its optimizer steps."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from common.clock import Clock, Span
from common.errors import InputError
from vocab_parallel.inputs.model import padded_vocabulary
from vocab_parallel.plan.forward_only import forward_only
from vocab_parallel.plan.methods import find
from vocab_parallel.plan.plans import Plan, layers_of, recomputed, vocabulary_shards
from vocab_parallel.run.checkpoint import Loaded, State, load, save
from vocab_parallel.run.data import load_tokens, sequences
from vocab_parallel.run.ends import Batch, Holdings
from vocab_parallel.run.executor import Executor
from vocab_parallel.run.gradients import Gradients
from vocab_parallel.run.hugging_face import start_from
from vocab_parallel.run.input import InputShard
from vocab_parallel.run.links import Groups
from vocab_parallel.run.model import Stage
from vocab_parallel.run.output import IGNORED, Algorithm, Rules, Shard
from vocab_parallel.run.selfcheck import check_output
from vocab_parallel.run.settings import Job
from vocab_parallel.run.weights import EMBEDDING, OUTPUT, Store, Weight

EVALUATION_STEP = 2**31
"""Number of the batch that `evaluate` takes: no step of training reaches it."""

_log = logging.getLogger(__name__)


class Step(NamedTuple):
    """What one step gave: the mean loss before it, the gradient's norm, its time and spans."""

    loss: float
    gradient_norm: float
    iteration_s: float
    spans: list[Span]
    update_s: float


class Measures(NamedTuple):
    """What a rank measured over all its steps; `first` is the number of the first of them."""

    first: int
    steps: list[Step]
    evaluation: float | None
    peak_bytes: int | None
    numerics: dict[str, float]
    passed_over: tuple[str, ...] = ()
    """Why later checkpoints than the one it went on from were not taken."""


class Trainer:
    """One rank of a run. All ranks construct it and call the same methods together."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.plan, self.device = job, job.plan, device
        training, schedule = job.training, job.plan.schedule
        self.groups = Groups(schedule, training.data_parallel, training.timeout_s, job.plan.tensor)
        count = self.groups.warm(device)
        if dist.get_rank() == 0:
            _log.debug("rank 0 has %d communicators beside the world's, each used once", count)
        self.store = Store(getattr(torch, training.dtype), device, job.seed)
        self.held = hold(job.plan, self.groups, self.store)
        if training.weights:
            start_from(Path(training.weights), job.plan.model, self.store)
        self.ids = load_tokens(training.tokens, job.plan.model)
        self.clock = Clock(device)
        self.store.pack()
        self.gradients = Gradients(job.plan, self.groups, self.store)
        self.optimizer = make_optimizer(self.store, job)
        self.rules = rules = Rules(
            algorithm(job),
            training.label_smoothing,
            training.block,
            training.keep,
            training.kernel,
            job.plan.model.logit_softcap,
        )
        self.executor = Executor(schedule, self.groups, self.held, rules, self.clock)
        self.evaluator = Executor(
            forward_only(schedule), self.groups, self.held, rules, Clock(device)
        )
        last = schedule.place(schedule.stages - 1)[0]
        self.tells = self.groups.shard == (0 if schedule.barriers else last * job.plan.tensor)
        self.state = State(self.store, self.optimizer, job.plan.model, job.seed)

    def step(self, number: int) -> Step:
        """Train on one global batch: passes, gradient sums, update."""
        batches = self.batches(number)
        dist.barrier()
        self.clock.begin()
        loss = self.executor.iterate(batches)
        self.gradients.sum()
        norm = self.gradients.clip(self.job.training.clip)
        before = self.clock.now_ms()
        self.optimizer.step()
        self.store.refresh()
        elapsed = self.clock.now_ms()
        self.store.clear_gradients()
        slowest = torch.tensor(elapsed, device=self.device, dtype=torch.float64)
        dist.all_reduce(slowest, dist.ReduceOp.MAX)
        return Step(
            self._total(loss),
            norm,
            float(slowest) / 1e3,
            self.clock.spans(),
            (elapsed - before) / 1e3,
        )

    def evaluate(self) -> float:
        """Return the mean loss of a batch that is not trained on; forward passes only."""
        return self._total(self.evaluator.iterate(self.batches(EVALUATION_STEP)))

    def check_output(self) -> dict[str, float]:
        """Return the errors of the sharded output layer on these ranks, by what was compared."""
        vocabulary = self.plan.model.vocabulary
        rules = self.rules._replace(kernel="torch")  # in float64, which the kernel has not
        return check_output(self.groups, vocabulary, rules, self.device)._asdict()

    def batches(self, number: int) -> list[Batch]:
        """Return this replica's micro-batches; gamma makes the sum of losses the global mean."""
        plan, replicas = self.plan, self.job.training.data_parallel
        count = plan.schedule.batches * plan.batch_size
        whole = sequences(
            plan.model, count * replicas, seed=self.job.seed, step=number, ids=self.ids
        )
        tokens = torch.from_numpy(whole).to(self.device)
        valid = int((tokens[:, 1:] != IGNORED).sum())
        mine = tokens[self.groups.replica * count : (self.groups.replica + 1) * count]
        made = []
        for part in mine.split(plan.batch_size):
            labels = part[:, 1:].flatten()
            gamma = (labels != IGNORED).to(torch.float64) / valid
            made.append(Batch(part[:, :-1], labels, gamma))
        return made

    def _total(self, loss: Tensor) -> float:
        total = loss if self.tells else torch.zeros_like(loss)
        dist.all_reduce(total)
        return float(total)


def hold(plan: Plan, groups: Groups, store: Store) -> Holdings:
    """Make a rank's stages and its rows of the vocabulary matrices."""
    schedule, model, rank, team = plan.schedule, plan.model, groups.rank, groups.team
    stages = [schedule.stage(rank, chunk) for chunk in range(schedule.chunks)]
    last = schedule.stages - 1
    made = []
    for stage in stages:
        layers, again = layers_of(plan, stage), recomputed(plan, stage)
        ends = {"first": stage == 0, "last": stage == last}
        made.append(Stage(model, store, layers=layers, team=team, again=again, **ends))
    shards = vocabulary_shards(plan)
    rows = padded_vocabulary(model.vocabulary, shards) // shards
    first = (groups.shard if schedule.barriers else team.place) * rows
    real = max(0, min(rows, model.vocabulary - first))
    name = EMBEDDING if model.tied else OUTPUT
    inputs = whole = None
    if schedule.barriers or 0 in stages:
        weight = Weight(EMBEDDING, (rows, model.hidden), first=first, real=real)
        inputs = InputShard(store.add(weight), first), EMBEDDING
    if schedule.barriers or last in stages:
        weight = Weight(name, (rows, model.hidden), first=first, real=real)
        whole = Shard(store.add(weight), first, real, model.vocabulary), name
    return Holdings(made, store, inputs, whole)


def algorithm(job: Job) -> Algorithm:
    """Return the arithmetic of the output layer."""
    if find(job.plan.method).output != "vocab-2":
        return "vocab-1"
    return "vocab-2" if job.training.vocab_2 == "stable" else "vocab-2-published"


def make_optimizer(store: Store, job: Job) -> torch.optim.AdamW:
    """Return AdamW over the main weights; it decays matrices only."""
    decayed = [value for value in store.main.values() if value.dim() > 1]
    kept = [value for value in store.main.values() if value.dim() == 1]
    for name, value in store.main.items():
        value.grad = store.gradients[name]
    groups = [
        {"params": decayed, "weight_decay": job.training.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=job.training.learning_rate,
        betas=job.training.betas,
    )


def _check_finite(loss: float, step: int) -> None:
    """Refuse to go on where training has diverged; all ranks know the same loss."""
    if not math.isfinite(loss):
        raise InputError(
            f"the loss is {loss} after {step} steps: training diverged; lower"
            " training.learning_rate"
        )


def train(job: Job, device: torch.device, report: Callable[[int, float], None]) -> list[Measures]:
    """Train on this rank and return what all ranks measured, in rank order.

    Goes on from the last checkpoint where there is one. Rank 0 calls `report(step, loss)`.
    """
    trainer, training = Trainer(job, device), job.training
    folder = Path(training.checkpoint) if training.checkpoint else None
    fallback = training.checkpoint_fallback
    loaded = load(trainer.state, folder, fallback=fallback) if folder else Loaded(0)
    numerics = trainer.check_output()
    done: list[Step] = []
    for number in range(loaded.step, training.steps):
        done.append(trainer.step(number))
        _check_finite(done[-1].loss, number)
        if dist.get_rank() == 0:
            report(number, done[-1].loss)
        due = number + 1 == training.steps
        if training.checkpoint_every:
            due = due or (number + 1) % training.checkpoint_every == 0
        if folder and due:
            save(trainer.state, folder, number + 1)
    evaluation = trainer.evaluate()
    _check_finite(evaluation, training.steps)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    own = Measures(loaded.step, done, evaluation, peak, numerics, loaded.passed_over)
    every: list[Measures] = [own] * job.world
    dist.all_gather_object(every, own)
    return every
