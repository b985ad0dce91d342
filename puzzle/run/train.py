"""One rank of a PPO run: generate, score, learn; switch between."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256

import torch
import torch.distributed as dist
from torch import Tensor

from puzzle.inputs.model import Role
from puzzle.plan.passes import ModelName
from puzzle.plan.plans import reshard_of
from puzzle.plan.roads import generation_pairs, switch_pairs, training_pairs
from puzzle.plan.schedules import inference, make_schedule, pass_ratio
from puzzle.run.data import batch_of, load_prompts, load_tokenizer, prompt_ids
from puzzle.run.decode import Decoding
from puzzle.run.executor import Work, execute
from puzzle.run.experience import (
    Experience,
    Scores,
    make_experience,
    meet,
    micro_batches,
    share,
)
from puzzle.run.generate import Answers, Generator, Prompts, Special, gather_replicas
from puzzle.run.groups import Groups, turned_places
from puzzle.run.links import Directions
from puzzle.run.ppo import actor_loss, critic_loss
from puzzle.run.rewards import programmed
from puzzle.run.settings import Job, StepFigures
from puzzle.run.stage import Stage
from puzzle.run.streams import Streams, Taken, streams_of
from puzzle.run.switch import Counted, Switcher
from puzzle.run.update import LossScale, Update
from puzzle.run.weights import Reader, Store, random_weights


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
        self.dtype: torch.dtype = getattr(torch, job.running.dtype)
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
            name: Stage(self._model(name), self._role(name), self._groups(name), store.weights)
            for name, store in self.stores.items()
        }
        running, total = job.running, job.running.steps * job.ppo.epochs
        optimizers = {"actor": running.actor_optimizer, "critic": running.critic_optimizer}
        self.updates = {
            name: Update(self.stores[name], self._groups(name), settings, total, LossScale(running))
            for name, settings in optimizers.items()
        }
        self.tokenizer = load_tokenizer(running.tokenizer)
        self.score = programmed(running.reward)
        work = job.plan.work
        self.prompts = prompt_ids(load_prompts(running.prompts), self.tokenizer, work.prompt)
        self.decoding: Decoding = "graph" if running.cuda_graphs else "grown"
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
        return Store(model, role, groups, read, self.dtype, self.device, trained=trained)

    def step(self, number: int) -> StepFigures:
        """Do one PPO step and return what all ranks measured."""
        seconds = [self._timed(lambda: self._generate(number))]
        answers = self.answers
        seconds.append(self._timed(lambda: self._infer(answers)))
        seconds.append(self._timed(lambda: self._learn(answers, number)))
        return self._figures(number, seconds)

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

    def prompts_of(self, number: int) -> Prompts:
        """Return this generation replica's prompts of a step."""
        work, replicas = self.plan.work, self.making.layout.data
        pad = self.tokenizer.pad
        seed = self.job.seed
        ids, valid = batch_of(self.prompts, pad, work.prompt, work.batch, number, seed)
        size = work.batch // replicas
        rows = slice(self.making.place.replica * size, (self.making.place.replica + 1) * size)
        numbers = torch.arange(rows.start, rows.stop) + number * work.batch
        found = (torch.from_numpy(ids[rows]), torch.from_numpy(valid[rows]), numbers)
        return Prompts(*(x.to(self.device) for x in found))

    def _generate(self, number: int) -> None:
        running = self.job.running
        stage = Stage(self.plan.actor, "actor", self.making, self.shard())
        special = Special(self.tokenizer.pad, self.tokenizer.end)
        generator = Generator(
            stage, self.making, self.directions, self.plan.work, running.sampling, special,
            self.job.seed, self.dtype, self.decoding,
        )  # fmt: skip
        whole = gather_replicas(generator.run(self.prompts_of(number)), self.making)
        self.digest.update(whole.ids.cpu().numpy().tobytes())
        size = self.plan.work.batch // self.groups.layout.data
        rows = slice(self.groups.place.replica * size, (self.groups.place.replica + 1) * size)
        self.answers = Answers(*(x[rows] for x in whole))

    # Stage 2

    def _infer(self, answers: Answers) -> None:
        names: list[ModelName] = ["reference", "reward", "critic"]
        if self.score is not None:
            names.remove("reward")
        if self.job.ppo.old_log_probs == "training":
            names.append("actor")
        batches = micro_batches(answers, self.plan.work.inference_micro_batch)
        stages = {str(name): self.stages[name] for name in names}
        scores = Scores(stages, batches, self.plan.work.prompt)
        merged = self.plan.choice.inference == "merged"
        streams = [tuple(names)] if merged else [tuple(names[i : i + 1]) for i in range(len(names))]
        for models in streams:
            turned: tuple[ModelName, ...] = tuple(n for n in models if n in self.turned)
            schedule = inference(self.groups.layout.pipeline, len(batches), models, turned)
            work = Work(stages, batches, scores.finish, {})
            execute(schedule, self.groups, self.directions, work, self.dtype)
        if self.turned:
            meet(scores, self.groups, self.directions, answers, self.score is None)
        self.experience: Experience | None = None
        if self.groups.last:
            found = self._scores(answers, scores)
            self.experience = make_experience(answers, scores, found, self.groups, self.job.ppo)
        if self.turned:
            self.experience = share(self.experience, self.groups, self.directions, answers)

    def _scores(self, answers: Answers, scores: Scores) -> Tensor:
        if self.score is None:
            return scores.whole("reward")
        texts = self.texts(answers)
        return torch.tensor([self.score(text) for text in texts], device=self.device)

    def texts(self, answers: Answers) -> list[str]:
        """Return the answers as text."""
        begin = self.plan.work.prompt
        rows = zip(answers.ids[:, begin:], answers.valid[:, begin:].bool(), strict=True)
        return [self.tokenizer.decode(ids[valid].tolist()) for ids, valid in rows]

    # Stage 3

    def _learn(self, answers: Answers, number: int) -> None:
        layout, size = self.groups.layout, self.plan.work.micro_batch
        batches = micro_batches(answers, size)
        ratio = pass_ratio(self.plan.actor, self.plan.critic)
        kind = self.plan.choice.schedule
        schedule = make_schedule(kind, layout.pipeline, len(batches), ratio)
        self.losses = {"actor": 0.0, "critic": 0.0}
        for epoch in range(self.job.ppo.epochs):
            at = number * self.job.ppo.epochs + epoch
            # The next step's switch may go beside what is left of training.
            final = epoch + 1 == self.job.ppo.epochs and number + 1 < self.job.running.steps

            def updated(model: str, final: bool = final) -> None:
                if model == "actor" and final and self.streams.ahead:
                    self._arrange()

            losses = self._losses(len(batches), size)
            work = Work(self.stages, batches, losses, self.updates, at, updated)
            execute(schedule, self.groups, self.directions, work, self.dtype)

    def _losses(self, count: int, size: int) -> Callable[[str, int, Tensor], Tensor]:
        """Return what the last stage makes of a micro-batch: its part of the loss."""
        start, ppo = self.plan.work.prompt - 1, self.job.ppo
        parts: list[Experience] = []
        if self.experience is not None:
            rows = zip(*(x.split(len(x) // count) for x in self.experience), strict=True)
            parts = [Experience(*row) for row in rows]

        def finish(model: str, batch: int, y: Tensor) -> Tensor:
            part, stage = parts[batch], self.stages[model]
            if model == "actor":
                new = stage.next_log_probs(y, self._ids(batch, size))[:, start:]
                loss = actor_loss(new, part.old, part.advantages, part.mask, ppo)
            else:
                new = stage.values(y)[:, start:-1]
                loss = critic_loss(new, part.values, part.returns, part.mask, ppo)
            self.losses[model] += float(loss.detach()) / count / ppo.epochs
            return loss / count

        return finish

    def _ids(self, batch: int, size: int) -> Tensor:
        return micro_batches(self.answers, size)[batch].ids

    def _figures(self, number: int, seconds: list[float]) -> StepFigures:
        replicas = self.groups.layout.data
        first = self.groups.place.slice == 0
        sums = torch.zeros(6, dtype=torch.float64, device=self.device)
        if self.groups.last and first and self.experience is not None:
            e = self.experience
            sums[0], sums[1] = e.score.sum(), len(e.score)
            sums[2], sums[3] = e.divergence.sum(), e.mask.sum()
        if first:  # each loss is known where its model ends, and 0 elsewhere
            sums[4], sums[5] = self.losses["actor"], self.losses["critic"]
        dist.all_reduce(sums)
        times = torch.tensor([*seconds, self.switch_s], dtype=torch.float64, device=self.device)
        dist.all_reduce(times, dist.ReduceOp.MAX)
        score, count, divergence, tokens, actor, critic = sums.tolist()
        generation, infer, training, switch = times.tolist()
        return StepFigures(
            step=number,
            reward=score / count,
            kl=divergence / max(1.0, tokens),
            actor_loss=actor / replicas,
            critic_loss=critic / replicas,
            actor_norm=self.updates["actor"].norm,
            critic_norm=self.updates["critic"].norm,
            generation_s=generation,
            switch_s=switch,
            inference_s=infer,
            training_s=training,
            answer_tokens=tokens / count,
            actor_scale=self.updates["actor"].scale.value,
            critic_scale=self.updates["critic"].scale.value,
            skipped=sum(update.skipped for update in self.updates.values()),
        )


def readers_of(job: Job) -> dict[str, Reader]:
    """Return where each model's weights come from.

    The reference is the actor as it was, the critic begins as the reward model.
    """
    from puzzle.run.checkpoint_files import checkpoint_weights

    running, seed = job.running, job.seed
    actor = random_weights(seed, "actor")
    critic = random_weights(seed, "critic")
    if running.actor_weights:
        actor = checkpoint_weights(running.actor_weights, job.plan.actor, "actor", seed)
    if running.critic_weights:
        critic = checkpoint_weights(running.critic_weights, job.plan.critic, "critic", seed)
    readers = {"actor": actor, "critic": critic, "reference": actor}
    if programmed(running.reward) is None:
        readers["reward"] = critic
    return readers
