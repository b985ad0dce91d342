"""One rank of a PPO run: generate, score, learn; switch between."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import sha256

import torch
import torch.distributed as dist
from torch import Tensor

from common.errors import InputError
from puzzle.inputs.model import Role
from puzzle.plan.passes import ModelName
from puzzle.plan.plans import reshard_of
from puzzle.plan.roads import generation_pairs, switch_pairs, training_pairs
from puzzle.plan.schedules import actor_alone, inference, make_schedule, pass_ratio
from puzzle.run.adapted import Adapted
from puzzle.run.data import Asked, held_prompts, load_tokenizer, order_of, prompts_for
from puzzle.run.dynamic import Batch, filled
from puzzle.run.ends import end_tokens
from puzzle.run.executor import Finish, Work, execute
from puzzle.run.experience import (
    Experience,
    Scores,
    make_experience,
    meet,
    micro_batches,
    share,
    told_by,
)
from puzzle.run.generate import Answers, Special
from puzzle.run.groups import Groups, turned_places
from puzzle.run.learn import Losses, Seen, rows_of, totals_over
from puzzle.run.links import Directions
from puzzle.run.means import Totals, replica_rows
from puzzle.run.rewards import Rewards, models_score
from puzzle.run.sampler import Sampler
from puzzle.run.samples import Spread
from puzzle.run.settings import Job, StepFigures
from puzzle.run.stage import Stage, Tokens
from puzzle.run.streams import Streams, Taken, streams_of
from puzzle.run.switch import Counted, Switcher
from puzzle.run.tally import Told, adapted_after, step_figures, summed
from puzzle.run.update import LossScale, Update
from puzzle.run.weights import Reader, Store

_APART = 2**20
"""Steps between the batches that are generated for one step: more than any run has."""


class Trainer:
    """All four models of one rank, and the steps of PPO on them."""

    def __init__(
        self,
        job: Job,
        device: torch.device,
        readers: dict[str, Reader],
        streams: Streams | None = None,
    ) -> None:
        self.job, self.device, self.plan = job, device, job.plan
        self.dtype: torch.dtype = getattr(torch, job.plan.dtype)
        choice, timeout = job.plan.choice, job.running.timeout_s
        self.groups = Groups(choice.training, timeout)
        moves = reshard_of(job.plan) if choice.training != choice.generation else None
        places = moves.places if moves else choice.generation.places()
        self.streams = streams or streams_of(device, beside=job.running.switch_beside)
        # Beside training, the switch's messages must not stand between those of the pipeline.
        ahead = self.streams.ahead
        switching = switch_pairs(moves) if moves else frozenset()
        pairs = training_pairs(choice.training) | generation_pairs(choice.generation, places)
        self.directions = Directions(timeout, pairs if ahead else pairs | switching)
        roads = Directions(timeout, switching) if ahead and moves else self.directions
        self.making = self.groups
        self.switcher: Switcher | None = None
        self.arranged: Taken[tuple[dict[str, Tensor], Counted]] | None = None
        # In the fused schedule the critic runs from the last rank to the first, its reward too.
        self.turned: tuple[ModelName, ...] = ()
        self.critics = self.groups
        if choice.schedule == "fused":
            self.turned = ("reward", "critic")
            self.critics = Groups(choice.training, timeout, turned_places(choice.training))
        self.stores = {name: self._store(name, readers[name]) for name in readers}
        if moves is not None:
            self.making = Groups(choice.generation, timeout, moves.places)
            slices = self.stores["actor"].slices
            self.switcher = Switcher(moves, self.groups, roads, slices)
        self.stages = {
            name: Stage(
                self._model(name),
                self._role(name),
                self._groups(name),
                store.weights,
                recompute=choice.recompute,
            )
            for name, store in self.stores.items()
        }
        running, work = job.running, job.plan.work
        self.mini_batch = job.ppo.mini_batch or work.batch
        total = running.steps * job.ppo.epochs * (work.batch // self.mini_batch)
        optimizers = {"actor": running.actor_optimizer, "critic": running.critic_optimizer}
        self.updates = {
            name: Update(
                self.stores[name],
                self._groups(name),
                settings,
                total,
                LossScale(running, job.plan.dtype),
            )
            for name, settings in optimizers.items()
            if name in self.stores
        }
        self.tokenizer = load_tokenizer(running.tokenizer)
        self.special = Special(self.tokenizer.pad, end_tokens(running, self.tokenizer))
        # Those of one tensor slice score for all; others have none to start.
        scores = self.groups.last and self.groups.place.slice == 0
        self.rewards = Rewards(running) if scores else None
        self.models_score = models_score(running)
        self.prompts = prompts_for(running, self.tokenizer, work.prompt)
        self.held = held_prompts(running, self.tokenizer, work.prompt)
        self.adapted = Adapted(job.ppo.kl)
        self.sampler = Sampler(job, self.making, self.directions, device, self.special)
        self.digest = sha256()
        self.counted = Counted(0, 0, 0)
        self.switch_s = 0.0

    def _role(self, name: str) -> Role:
        return "actor" if name in ("actor", "reference") else "critic"

    def _model(self, name: str):
        return self.plan.actor if self._role(name) == "actor" else self.plan.critic

    def _groups(self, name: str) -> Groups:
        return self.groups if self._role(name) == "actor" else self.critics

    def _store(self, name: str, read: Reader) -> Store:
        trained = name in ("actor", "critic")
        role, model = self._role(name), self._model(name)
        groups = self._groups(name)
        return Store(
            model, role, groups, read, self.dtype, self.device,
            trained=trained, sharded=self.plan.choice.shard_optimizer,
        )  # fmt: skip

    def step(self, number: int) -> StepFigures:
        """Do one PPO step and return what all ranks measured."""
        seconds = [self._timed(lambda: self._generate(number))]
        answers = self.answers
        seconds.append(self._timed(lambda: self._infer(answers)))
        seconds.append(self._timed(lambda: self._learn(answers, number)))
        every = self.job.running.evaluate_every
        held = self.evaluate() if every and (number + 1) % every == 0 else None
        return self._figures(number, seconds, held)

    def _timed(self, action: Callable[[], None]) -> float:
        dist.barrier()
        begin = time.perf_counter()
        action()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    # Stage 1

    def shard(self) -> dict[str, Tensor]:
        """Return the actor's weights in the generation layout; measures the switch."""
        weights = self.stores["actor"].detached()
        if self.switcher is None:
            return weights
        begin = time.perf_counter()
        if self.arranged is None:
            self._arrange()
        assert self.arranged is not None
        made, self.counted = self.arranged.take()
        self.arranged = None
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.switch_s = time.perf_counter() - begin
        return made

    def _arrange(self) -> None:
        """Have the switch carried out, now or when it is taken."""
        switcher, weights = self.switcher, self.stores["actor"].detached()
        if switcher is not None:
            self.arranged = self.streams.arrange(lambda: switcher.start(weights), switcher.finish)

    def order_of(self, number: int) -> list[int]:
        """Return which prompts a step asks, by answer of the batch."""
        count, batch, seed = len(self.prompts.ids), self.plan.work.batch, self.job.seed
        return order_of(count, batch, number, seed, self.job.ppo.samples)

    def _generate(self, number: int) -> None:
        stage, ppo = Stage(self.plan.actor, "actor", self.making, self.shard()), self.job.ppo
        self.replaced, self.failed, self.asked = 0, 0, 0
        self.scores: Tensor | None = None
        if ppo.dynamic_sampling:

            def further(at: int) -> Batch:  # of steps that never come
                asked = self._asked(number + at * _APART)
                return self._scored(self.sampler.draw(stage, asked))

            batch, self.replaced = filled(further, ppo.dynamic_sampling, ppo.samples)
            self.scores = batch.scores[self._own_rows()]
        else:
            batch = self.sampler.draw(stage, self._asked(number))
        self.digest.update(batch.answers.ids.cpu().numpy().tobytes())
        self._take(batch)

    def _asked(self, number: int) -> Asked:
        """Return which prompts a step asks."""
        return Asked(self.prompts, self.order_of(number), number)

    def _own_rows(self) -> list[int]:
        """Return which answers of a batch this replica learns from."""
        replicas, replica = self.groups.layout.data, self.groups.place.replica
        return replica_rows(self.plan.work.batch, self.mini_batch, replicas, replica)

    def _take(self, batch: Batch) -> None:
        """Have this replica's answers, and the rows that they are to."""
        rows = self._own_rows()
        self.answers = Answers(*(x[rows] for x in batch.answers))
        self.rows = [batch.rows[row] for row in rows]

    def _scored(self, batch: Batch) -> Batch:
        """Return a batch with the scores of all its answers, on every rank."""
        self._take(batch)
        names: tuple[ModelName, ...] = ("reward",) if self.models_score else ()
        scores = self._passes(self.answers, [names] if names else [])
        found = self.answers.log_probs.new_zeros(len(batch.rows))
        if self.groups.last:
            own = self._scores(self.answers, scores)
            if self.groups.place.slice == 0:
                found[self._own_rows()] = own
        dist.all_reduce(found)
        return batch._replace(scores=found)

    def evaluate(self) -> float | None:
        """Return the mean score of an answer to each held prompt; None where there are none.

        Batches are whole: the last one is filled with prompts from the first on, not counted.
        """
        held, work = self.held, self.plan.work
        if held is None:
            return None
        kept = self.answers, self.rows, self.failed, self.asked
        stage, scores = Stage(self.plan.actor, "actor", self.making, self.shard()), list[Tensor]()
        for first in range(0, len(held.ids), work.batch):
            order = [at % len(held.ids) for at in range(first, first + work.batch)]
            # Numbers of batches that no step has.
            batch = self.sampler.draw(stage, Asked(held, order, -1 - first // work.batch))
            scores.append(self._scored(batch).scores)
        self.answers, self.rows, self.failed, self.asked = kept
        return float(torch.cat(scores)[: len(held.ids)].double().mean())

    # Stage 2

    def _infer(self, answers: Answers) -> None:
        names: list[ModelName] = ["reference", "reward", "critic"]
        if not self.models_score or self.scores is not None:
            names.remove("reward")
        if not self.job.ppo.critic_learns:
            names.remove("critic")
        if self.job.ppo.old_log_probs == "training":
            names.append("actor")
        merged = self.plan.choice.inference == "merged"
        streams = [tuple(names)] if merged else [tuple(names[i : i + 1]) for i in range(len(names))]
        scores = self._passes(answers, streams)
        self.experience: Experience | None = None
        if self.groups.last:
            prompt = self.plan.work.prompt
            ended = answers.ended(prompt, self.special)
            found = self._scores(answers, scores) if self.scores is None else self.scores
            told = told_by(answers, scores, found, ended)
            self.experience, self.adapted = make_experience(
                told, answers.valid, prompt, self.job.ppo, self.adapted, self._spread()
            )
        if self.turned:
            self.experience = share(self.experience, self.groups, self.directions, answers)

    def _passes(self, answers: Answers, streams: Sequence[tuple[ModelName, ...]]) -> Scores:
        """Return what models say of the answers, stream by stream."""
        batches = micro_batches(answers, self.plan.work.scored(len(answers.ids)))
        stages = {str(name): self.stages[name] for names in streams for name in names}
        drawn = answers.drawn(self.job.running.sampling)
        scores = Scores(stages, batches, self.plan.work.prompt, drawn)
        for models in streams:
            turned: tuple[ModelName, ...] = tuple(n for n in models if n in self.turned)
            schedule = inference(self.groups.layout.pipeline, len(batches), models, turned)
            work = Work(stages, batches, scores.finish, {})
            execute(schedule, self.groups, self.directions, work, self.dtype)
        if self.turned:
            meet(scores, self.groups, self.directions, answers)
        return scores

    def _spread(self) -> Spread:
        """Return which answers of the batch each replica learns from."""
        batch, replicas = self.plan.work.batch, self.groups.layout.data
        rows = [replica_rows(batch, self.mini_batch, replicas, r) for r in range(replicas)]
        return Spread(rows, self.groups.place.replica, self.groups.data)

    def _scores(self, answers: Answers, scores: Scores) -> Tensor:
        """Return the weighted sum of all rewards, the same on every slice."""
        found = torch.zeros(len(answers.ids), dtype=answers.log_probs.dtype, device=self.device)
        if self.rewards is not None:
            texts = self.texts(answers)
            rows = [row | {"answer": t} for row, t in zip(self.rows, texts, strict=True)]
            found += torch.tensor(self.rewards.score(rows), dtype=found.dtype, device=self.device)
            self.failed += self.rewards.failed
            self.asked += len(rows)
            if self.models_score:
                found += self.rewards.model_weight * scores.whole("reward")
        if self.groups.tensor is not None:
            dist.broadcast(found, group_src=0, group=self.groups.tensor)
        return found

    def texts(self, answers: Answers) -> list[str]:
        """Return the answers as text."""
        begin = self.plan.work.prompt
        ids, valid = answers.ids[:, begin:].cpu(), answers.valid[:, begin:].bool().cpu()
        rows = zip(ids, valid, strict=True)
        return [self.tokenizer.decode(ids[valid].tolist()) for ids, valid in rows]

    # Stage 3

    def _learn(self, answers: Answers, number: int) -> None:
        layout, size = self.groups.layout, self.plan.work.micro_batch
        cuts = self._mini_batches(answers)
        ratio = pass_ratio(self.plan.actor, self.plan.critic)
        count = len(answers.ids) // len(cuts) // size
        schedule = actor_alone(layout.pipeline, count)
        if self.job.ppo.critic_learns:
            schedule = make_schedule(self.plan.choice.schedule, layout.pipeline, count, ratio)
        self.seen, totals = Seen(), list[Totals]()
        if self.experience is not None:
            totals = totals_over(self.experience, cuts, self.groups.data)
        updates = self.job.ppo.epochs * len(cuts)
        for at in range(updates):
            # The next step's switch may go beside what is left of training.
            final = at + 1 == updates and number + 1 < self.job.running.steps

            def updated(model: str, final: bool = final) -> None:
                if model == "actor" and final and self.streams.ahead:
                    self._arrange()

            part = at % len(cuts)
            rows = Answers(*(x[cuts[part]] for x in answers))
            batches = micro_batches(rows, size)
            finish = self._losses(batches, rows, cuts[part], totals[part] if totals else None)
            step = number * updates + at
            work = Work(self.stages, batches, finish, self.updates, step, updated)
            execute(schedule, self.groups, self.directions, work, self.dtype)

    def _mini_batches(self, answers: Answers) -> list[slice]:
        """Return this replica's rows of each mini-batch."""
        size = self.mini_batch // self.groups.layout.data
        return [slice(first, first + size) for first in range(0, len(answers.ids), size)]

    def _losses(
        self, batches: list[Tokens], answers: Answers, rows: slice, totals: Totals | None
    ) -> Finish:
        """Return what the last stage makes of a micro-batch; other stages make nothing."""
        if self.experience is None or totals is None:
            return lambda model, batch, y: None
        part = rows_of(self.experience, rows)
        drawn = answers.drawn(self.job.running.sampling)
        weight = self.adapted.kl_weight
        losses = Losses(self.stages, batches, part, drawn, totals, self.job.ppo, weight, self.seen)
        return losses.finish

    def close(self) -> None:
        """End what was started beside the ranks."""
        if self.rewards is not None:
            self.rewards.close()

    def _all_failed(self) -> None:
        """Raise InputError on all ranks: a reward that fails at every answer teaches nothing."""
        why = [self.rewards.why if self.rewards else ""] * self.plan.world
        dist.all_gather_object(why, why[0])
        first = next(filter(None, why), "")
        raise InputError(f"running.reward failed at every answer of a step: {first}")

    def _figures(self, number: int, seconds: list[float], held: float | None) -> StepFigures:
        scored = self.failed, self.asked
        sums = summed(self.experience, self.seen, self.adapted, self.groups, self.device, scored)
        if 0 < sums["asked"] == sums["failed"]:
            self._all_failed()
        times = torch.tensor([*seconds, self.switch_s], dtype=torch.float64, device=self.device)
        dist.all_reduce(times, dist.ReduceOp.MAX)
        kl_weight = self.adapted.kl_weight
        self.adapted = adapted_after(sums, self.adapted, self.job.ppo)
        updates = self.job.ppo.epochs * (self.plan.work.batch // self.mini_batch)
        told = Told(number, self.job, kl_weight, self.replaced, held)
        return step_figures(told, sums, times.tolist(), self.updates, updates)
