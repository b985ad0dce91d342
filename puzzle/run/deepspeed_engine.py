"""The baseline: PPO by DeepSpeed ZeRO-3 as DeepSpeed-Chat does it, behind one function.

Actor and critic are cut over all ranks; generation gathers the actor's whole weights on every rank
and decodes its own share of the batch. Prompts, draws and formulas are this package's, so the run
must generate the sequences that our runtime does, and learn the same to rounding.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from math import log2
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from puzzle.inputs.model import SCORE, Llama, Role, parameters, tensors
from puzzle.plan.slices import Slice
from puzzle.run.data import batch_of, load_prompts, load_tokenizer, prompt_ids
from puzzle.run.generate import Prompts, Special
from puzzle.run.hybrid import Drawer, Generated, generate, settings, why_not
from puzzle.run.ppo import (
    actor_loss,
    advantages_of,
    critic_loss,
    last_answer_token,
    token_rewards,
    whitened,
)
from puzzle.run.rewards import programmed
from puzzle.run.sample import draw
from puzzle.run.settings import Job, Moved, RunResult, StepFigures
from puzzle.run.update import learning_rate
from puzzle.run.weights import Reader

SHARED_MEMORY = "deepspeed_shm_comm"
"""An extension that DeepSpeed compiles on its first use on CPUs: minutes, and a build that was
killed leaves a lock on which every later run waits for ever. Collectives through gloo need none."""


@contextmanager
def deepspeed() -> Iterator[Any]:
    """Yield the deepspeed module, told to compile nothing."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning)  # of torch, about deepspeed's calls
    import deepspeed as module
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    operators: dict[str, bool] = module.ops.__compatible_ops__
    operators[SHARED_MEMORY] = False
    yield module


class _Critic(torch.nn.Module):
    """A LLaMA body with a scalar head."""

    def __init__(self, config: Any) -> None:
        from transformers import LlamaModel

        super().__init__()
        self.model = LlamaModel(config)
        self.score = torch.nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        out = self.model(input_ids=ids, attention_mask=mask, position_ids=positions)
        return self.score(out.last_hidden_state)[..., 0].float()


def hugging_face(model: Llama, role: Role, read: Reader) -> torch.nn.Module:
    """Return transformers' LLaMA of a role with a reader's weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    options: dict[str, Any] = {
        "hidden_size": model.hidden,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.key_heads,
        "vocab_size": model.vocabulary,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_base,
        "tie_word_embeddings": False,
        "attn_implementation": "sdpa",
    }
    config = LlamaConfig(**options)
    made = LlamaForCausalLM(config) if role == "actor" else _Critic(config)
    values = {
        t.name: read(Slice(t, 0, 0 if t.axis is None else t.shape[t.axis]))
        for t in tensors(model, role)
    }
    assert role == "actor" or SCORE in values
    made.load_state_dict(values)
    return made


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
        self.tokenizer, self.score = load_tokenizer(running.tokenizer), programmed(running.reward)
        self.prompts = prompt_ids(load_prompts(running.prompts), self.tokenizer, self.work.prompt)
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
            "bf16": {"enabled": self.job.running.dtype == "bfloat16"},
            "fp16": {
                "enabled": self.job.running.dtype == "float16",
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
        found = batch_of(self.prompts, pad, work.prompt, work.batch, number, self.job.seed)
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
                past, logits = out.past_key_values, out.logits[:, -1].float()
                tokens = draw(
                    logits,
                    running.sampling,
                    self.job.seed,
                    numbers,
                    torch.full_like(numbers, place),
                )
                tokens = tokens.where(~ended, torch.full_like(tokens, pad))
                chosen = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
                logs.append(chosen * ~ended)
                ids = torch.cat([ids, tokens[:, None]], 1)
                valid = torch.cat([valid, (~ended).long()[:, None]], 1)
                if running.sampling.stop_at_end:
                    ended |= tokens == self.tokenizer.end
                x = tokens[:, None]
        self._keep(Generated(ids, valid, torch.stack(logs, 1)))

    def _generate_hybrid(self, prompts: Prompts) -> None:
        """Generate by the hybrid engine, which gathers and times its gather itself."""
        special = Special(self.tokenizer.pad, self.tokenizer.end)
        drawer = Drawer(prompts, self.job.running.sampling, special, self.job.seed)
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
        model, kind = self.engines["actor"].module, getattr(torch, self.job.running.dtype)
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
        if self.score is None:
            scored = torch.cat([self.frozen["reward"](*self._inputs(b)) for b in self._parts(size)])
            scores = scored.gather(1, last_answer_token(self.valid, prompt)[:, None])[:, 0]
        else:
            texts = self.texts()
            scores = torch.tensor([self.score(text) for text in texts], device=self.device)
        old = torch.zeros_like(reference)
        old[:, prompt - 1 :] = self.old
        rewards = token_rewards(old, reference, scores, self.valid, prompt, ppo)
        found = advantages_of(values[:, :-1], rewards, self.valid, prompt, ppo)
        mask = self.valid[:, prompt:].float()
        advantages = found.advantages
        if ppo.whiten:
            parts = mask, advantages * mask, advantages.square() * mask
            sums = torch.stack([part.sum() for part in parts])
            dist.all_reduce(sums)
            advantages = whitened(advantages, mask, sums)
        self.learnt = (self.old, values[:, prompt - 1 : -1], advantages, found.returns, mask)
        divergence = ((old - reference)[:, prompt - 1 :] * mask).sum()
        self.sums = [float(scores.sum()), len(scores), float(divergence), float(mask.sum())]

    def _parts(self, size: int) -> list[slice]:
        return [slice(i, i + size) for i in range(0, len(self.ids), size)]

    def _inputs(self, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        valid = self.valid[rows]
        return self.ids[rows], valid, (valid.cumsum(1) - 1).clamp(min=0)

    def _logs(self, model: Any, rows: slice) -> Tensor:
        ids, mask, positions = self._inputs(rows)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        losses = functional.cross_entropy(
            out.logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none"
        )
        return -losses

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
                    old, values, advantages, returns, mask = (x[rows] for x in self.learnt)
                    if name == "actor":
                        new = self._logs(engine, rows)[:, start:]
                        loss = actor_loss(new, old, advantages, mask, ppo)
                    else:
                        new = engine(*self._inputs(rows))[:, start:-1]
                        loss = critic_loss(new, values, returns, mask, ppo)
                    engine.backward(loss)
                    engine.step()
                    self.losses[name] += float(loss.detach()) / len(parts) / ppo.epochs
                self.norms[name] = float(engine.get_global_grad_norm() or 0.0)

    def texts(self) -> list[str]:
        """Return this rank's answers as text."""
        begin = self.work.prompt
        rows = zip(self.ids[:, begin:], self.valid[:, begin:].bool(), strict=True)
        return [self.tokenizer.decode(ids[valid].tolist()) for ids, valid in rows]

    def _figures(self, number: int, seconds: list[float]) -> StepFigures:
        sums = torch.tensor([*self.sums, *self.losses.values()], dtype=torch.float64)
        sums = sums.to(self.device)
        dist.all_reduce(sums)
        times = torch.tensor([*seconds, self.gather_s], dtype=torch.float64, device=self.device)
        dist.all_reduce(times, dist.ReduceOp.MAX)
        score, count, divergence, tokens, actor, critic = sums.tolist()
        generation, infer, training, gather = times.tolist()
        return StepFigures(
            step=number,
            reward=score / count,
            kl=divergence / max(1.0, tokens),
            actor_loss=actor / self.world,
            critic_loss=critic / self.world,
            actor_norm=self.norms["actor"],
            critic_norm=self.norms["critic"],
            generation_s=generation,
            switch_s=gather,
            inference_s=infer,
            training_s=training,
            answer_tokens=tokens / count,
        )


def run_baseline(rank: int, report: Callable[[StepFigures], None], job: Job) -> RunResult:
    """Do one rank's whole work of the baseline; only rank 0 reports."""
    from puzzle.run.train import readers_of

    cuda = job.backend == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    with deepspeed() as module:
        module.init_distributed(dist_backend=job.backend)
    readers = readers_of(job)
    baseline = Baseline(job, device, readers)
    exact = [baseline.is_exact(readers["actor"])] * baseline.world
    dist.all_gather_object(exact, exact[0])
    steps: list[StepFigures] = []
    for number in range(job.running.steps):
        steps.append(baseline.step(number))
        if rank == 0:
            report(steps[-1])
    received = [0] * baseline.world
    dist.all_gather_object(received, baseline.received())
    width = 4 if job.running.dtype == "float32" else 2
    size = width * parameters(job.plan.actor)
    planned = round((baseline.world - 1) / baseline.world * size)
    moved = Moved(
        engine="deepspeed-zero3",
        received=tuple(received),
        planned=(planned,) * baseline.world,
        messages=(1,) * baseline.world,
        seconds=min(step.switch_s for step in steps),
        exact=all(exact),
    )
    return RunResult(
        experiment=job.plan.experiment,
        backend=job.backend,
        device=torch.cuda.get_device_name() if cuda else "CPU",
        world_size=baseline.world,
        seed=job.seed,
        first_step=0,
        steps=tuple(steps),
        switches=(moved,),
        answers=tuple(baseline.texts()[:4]),
        digest=baseline.digest.hexdigest(),
        peak_bytes=torch.cuda.max_memory_allocated() if cuda else None,
    )
