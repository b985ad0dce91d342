"""The baseline: PPO by DeepSpeed ZeRO-3 as DeepSpeed-Chat does it, behind one function.

Actor and critic are cut over all ranks; generation gathers the actor's whole weights on every rank
and decodes its own share of the batch. Prompts, draws and formulas are this package's, so the run
must generate the sequences that our runtime does, and learn the same to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from math import log2
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from puzzle.inputs.model import Llama, Role, tensors
from puzzle.plan.slices import Slice
from puzzle.run.adapted import Adapted
from puzzle.run.data import batch_of, load_tokenizer, order_of, prompts_for
from puzzle.run.deepspeed_models import deepspeed, hugging_face
from puzzle.run.ends import end_tokens
from puzzle.run.experience import Told, make_experience
from puzzle.run.generate import Prompts, Special
from puzzle.run.hybrid import Drawer, Generated, generate, settings, why_not
from puzzle.run.learn import rows_of
from puzzle.run.means import totals_of
from puzzle.run.ppo import actor_loss, critic_loss, last_answer_token
from puzzle.run.rewards import Rewards
from puzzle.run.sample import distribution, pick
from puzzle.run.samples import Spread
from puzzle.run.settings import Job, StepFigures
from puzzle.run.update import learning_rate
from puzzle.run.weights import Reader


class Baseline:
    """One rank's share of the baseline."""

    def __init__(self, job: Job, device: torch.device, readers: dict[str, Reader]) -> None:
        self.job, self.device, self.work = job, device, job.plan.work
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        roles: dict[str, tuple[Llama, Role]] = {
            "actor": (job.plan.actor, "actor"),
            "reference": (job.plan.actor, "actor"),
            "critic": (job.plan.critic, "critic"),
            "reward": (job.plan.critic, "critic"),
        }
        made = {name: hugging_face(*roles[name], read) for name, read in readers.items()}
        self.frozen = {
            n: m.eval().to(device) for n, m in made.items() if n in ("reference", "reward")
        }
        running = job.running
        self.settings = {"actor": running.actor_optimizer, "critic": running.critic_optimizer}
        self.hybrid = not why_not(job.backend, wanted=running.hybrid_engine)
        self.engines = {n: self._engine(made[n], n) for n in ("actor", "critic")}
        self.tokenizer, self.rewards = load_tokenizer(running.tokenizer), Rewards(running)
        self.special = Special(self.tokenizer.pad, end_tokens(running, self.tokenizer))
        self.prompts = prompts_for(running, self.tokenizer, self.work.prompt)
        self.digest = sha256()
        self.gather_s = 0.0
        self.norms = {"actor": 0.0, "critic": 0.0}

    def _engine(self, model: torch.nn.Module, name: str) -> Any:
        work, o = self.work, self.settings[name]
        local = work.local(self.world)
        config: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": work.micro_batch,
            "gradient_accumulation_steps": local // work.micro_batch,
            "gradient_clipping": o.clip,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            "bf16": {"enabled": self.job.plan.dtype == "bfloat16"},
            "fp16": {
                "enabled": self.job.plan.dtype == "float16",
                "initial_scale_power": round(log2(self.job.running.loss_scale)),
                "loss_scale_window": self.job.running.loss_scale_window,
            },
            "steps_per_print": 2**31,
        }
        if self.hybrid and name == "actor":
            config["hybrid_engine"] = settings(work.length)
        decayed = [p for p in model.parameters() if p.dim() > 1]
        kept = [p for p in model.parameters() if p.dim() == 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": o.weight_decay},
                {"params": kept, "weight_decay": 0.0},
            ],
            lr=o.rate,
            betas=o.betas,
        )
        with deepspeed() as module:
            config["zero_allow_untested_optimizer"] = True
            engine, *_ = module.initialize(model=model, optimizer=optimizer, config=config)
        return engine

    def step(self, number: int) -> StepFigures:
        """Do one PPO step."""
        seconds = [self._timed(lambda: self._generate(number))]
        seconds.append(self._timed(self._infer))
        seconds.append(self._timed(lambda: self._learn(number)))
        return self._figures(number, seconds)

    def _timed(self, action: Callable[[], None]) -> float:
        dist.barrier()
        begin = time.perf_counter()
        action()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    @torch.no_grad()
    def _generate(self, number: int) -> None:
        work, running = self.work, self.job.running
        local = work.local(self.world)
        rows = slice(self.rank * local, (self.rank + 1) * local)
        pad = self.tokenizer.pad
        order = order_of(len(self.prompts.ids), work.batch, number, self.job.seed)
        found = batch_of(self.prompts.ids, pad, work.prompt, order)
        self.rows = [self.prompts.rows[place] for place in order[rows]]
        ids, valid = (torch.from_numpy(x[rows]).to(self.device) for x in found)
        numbers = torch.arange(rows.start, rows.stop, device=self.device) + number * work.batch
        if self.hybrid:
            self._generate_hybrid(Prompts(ids, valid, numbers))
            return
        module = self.engines["actor"].module
        with self.gathered(module):
            ended = torch.zeros(local, dtype=torch.bool, device=self.device)
            logs, past, x = list[Tensor](), None, ids
            for place in range(work.prompt, work.length):
                positions = (valid.cumsum(1) - 1).clamp(min=0)[:, -x.shape[1] :]
                out = module(
                    input_ids=x, attention_mask=valid, position_ids=positions,
                    past_key_values=past, use_cache=True, logits_to_keep=1,
                )  # fmt: skip
                past = out.past_key_values
                logits = distribution(out.logits[:, -1], running.sampling)
                tokens = pick(logits, self.job.seed, numbers, torch.full_like(numbers, place))
                tokens = tokens.where(~ended, torch.full_like(tokens, pad))
                chosen = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
                logs.append(chosen * ~ended)
                ids = torch.cat([ids, tokens[:, None]], 1)
                valid = torch.cat([valid, (~ended).long()[:, None]], 1)
                if running.sampling.stop_at_end:
                    ended |= self.special.ending(tokens)
                x = tokens[:, None]
        self._keep(Generated(ids, valid, torch.stack(logs, 1)))

    def _generate_hybrid(self, prompts: Prompts) -> None:
        """Generate by the hybrid engine, which gathers and times its gather itself."""
        drawer = Drawer(prompts, self.job.running.sampling, self.special, self.job.seed)
        engine = self.engines["actor"]
        engine.eval()
        found = generate(engine.generate, prompts, self.work.answer, drawer)
        engine.train()
        self.gather_s = float(engine._gather_latency)
        self._keep(found)

    def _keep(self, found: Generated) -> None:
        self.ids, self.valid, self.old = found
        every = [torch.empty_like(found.ids) for _ in range(self.world)]
        dist.all_gather(every, found.ids)
        self.digest.update(torch.cat(every).cpu().numpy().tobytes())

    @contextmanager
    def gathered(self, model: torch.nn.Module) -> Iterator[None]:
        """Hold a model's whole weights; measures the gather."""
        begin = time.perf_counter()
        with deepspeed() as module, module.zero.GatheredParameters(list(model.parameters())):
            self.gather_s = time.perf_counter() - begin
            yield

    def received(self) -> int:
        """Return the bytes that the gather brings to this rank: what other ranks hold."""
        total = 0
        for p in self.engines["actor"].module.parameters():
            own = p.ds_tensor.ds_numel if hasattr(p.ds_tensor, "ds_numel") else p.ds_tensor.numel()
            total += (self.world * own - own) * p.element_size()
        return total

    def is_exact(self, read: Reader) -> bool:
        """Say whether the gathered weights are a reader's, bit by bit; before the first step."""
        model, kind = self.engines["actor"].module, getattr(torch, self.job.plan.dtype)
        wanted = {
            t.name: read(Slice(t, 0, 0 if t.axis is None else t.shape[t.axis])).to(kind)
            for t in tensors(self.job.plan.actor)
        }
        with self.gathered(model):
            found = dict(model.named_parameters())
            return all(torch.equal(found[n].cpu(), value) for n, value in wanted.items())

    @torch.no_grad()
    def _infer(self) -> None:
        prompt, ppo = self.work.prompt, self.job.ppo
        size = self.work.micro_batch
        reference = torch.cat([self._logs(self.frozen["reference"], b) for b in self._parts(size)])
        critic = self.engines["critic"]
        values = torch.cat([critic(*self._inputs(b)) for b in self._parts(size)])
        rows = [row | {"answer": t} for row, t in zip(self.rows, self.texts(), strict=True)]
        scores = torch.tensor(self.rewards.score(rows), device=self.device)
        if self.rewards.needs_model:
            scored = torch.cat([self.frozen["reward"](*self._inputs(b)) for b in self._parts(size)])
            scored = scored.gather(1, last_answer_token(self.valid, prompt)[:, None])[:, 0]
            scores = scores + self.rewards.model_weight * scored
        old = torch.zeros_like(reference)
        old[:, prompt - 1 :] = self.old
        ending = self.special.ending(self.ids[:, prompt:]) & self.valid[:, prompt:].bool()
        told = Told(old, reference, values, scores, ending.any(1))
        group = dist.group.WORLD
        own = [
            range(first, first + len(scores)) for first in range(0, self.work.batch, len(scores))
        ]
        spread = Spread(own, self.rank, group)
        self.learnt, _ = make_experience(told, self.valid, prompt, ppo, Adapted(ppo.kl), spread)
        self.totals = totals_of([self.learnt.mask], group)[0]

    def _parts(self, size: int) -> list[slice]:
        return [slice(i, i + size) for i in range(0, len(self.ids), size)]

    def _inputs(self, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        valid = self.valid[rows]
        return self.ids[rows], valid, (valid.cumsum(1) - 1).clamp(min=0)

    def _logs(self, model: Any, rows: slice) -> Tensor:
        ids, mask, positions = self._inputs(rows)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        logits = out.logits[:, :-1].float() / self.job.running.sampling.temperature
        return -functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")

    def _learn(self, number: int) -> None:
        start, ppo = self.work.prompt - 1, self.job.ppo
        self.losses = {"actor": 0.0, "critic": 0.0}
        parts = self._parts(self.work.micro_batch)
        for epoch in range(ppo.epochs):
            at, total = number * ppo.epochs + epoch, self.job.running.steps * ppo.epochs
            for name, engine in self.engines.items():
                for group in engine.optimizer.param_groups:
                    group["lr"] = learning_rate(self.settings[name], at, total)
                for rows in parts:
                    e = rows_of(self.learnt, rows)
                    if name == "actor":
                        new = self._logs(engine, rows)[:, start:]
                        loss = actor_loss(new, e.old, e.advantages, e.mask, ppo, self.totals)
                    else:
                        new = engine(*self._inputs(rows))[:, start:-1]
                        loss = critic_loss(new, e.values, e.returns, e.mask, ppo, self.totals)
                    # A share of the mean over all; the engine divides by micro-batches and ranks.
                    engine.backward(loss * (len(parts) * self.world))
                    engine.step()
                    self.losses[name] += float(loss.detach()) / ppo.epochs
                self.norms[name] = float(engine.get_global_grad_norm() or 0.0)

    def texts(self) -> list[str]:
        """Return this rank's answers as text."""
        begin = self.work.prompt
        rows = zip(self.ids[:, begin:], self.valid[:, begin:].bool(), strict=True)
        return [self.tokenizer.decode(ids[valid].tolist()) for ids, valid in rows]

    def _figures(self, number: int, seconds: list[float]) -> StepFigures:
        e = self.learnt
        own = [e.score, torch.ones_like(e.score), e.divergence, e.tokens, e.cut_off]
        found = [float(x.double().sum()) for x in own]
        sums = torch.tensor([*found, *self.losses.values()], dtype=torch.float64)
        sums = sums.to(self.device)
        dist.all_reduce(sums)
        times = torch.tensor([*seconds, self.gather_s], dtype=torch.float64, device=self.device)
        dist.all_reduce(times, dist.ReduceOp.MAX)
        score, count, divergence, tokens, cut_off, actor, critic = sums.tolist()
        generation, infer, training, gather = times.tolist()
        return StepFigures(
            step=number,
            reward=score / count,
            kl=divergence / max(1.0, tokens),
            kl_weight=self.job.ppo.kl,
            actor_loss=actor,
            critic_loss=critic,
            actor_norm=self.norms["actor"],
            critic_norm=self.norms["critic"],
            generation_s=generation,
            switch_s=gather,
            inference_s=infer,
            training_s=training,
            answer_tokens=tokens / count,
            cut_off=cut_off / count,
        )
