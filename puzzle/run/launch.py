"""Align by a plan on real ranks.

Started plainly, `launch` starts the ranks on this machine; under torchrun (RANK and WORLD_SIZE are
set) it runs as the one rank that it is.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InputError
from common.ranks import launch as launch_ranks
from puzzle.inputs.model import parameters
from puzzle.inputs.precision import kinds_of
from puzzle.plan.plans import check
from puzzle.run.checkpoint_about import about_of, check_resume
from puzzle.run.data import Tokenizer, held_prompts, load_tokenizer, prompts_for
from puzzle.run.ends import end_tokens
from puzzle.run.rewards import check_rewards
from puzzle.run.settings import Job, RunResult, StepFigures

if TYPE_CHECKING:
    import torch

    from puzzle.run.train import Trainer

log = logging.getLogger("puzzle")

OnStep = Callable[[StepFigures], None]


def launch(
    job: Job, *, world_size: int | None = None, on_step: OnStep = lambda figures: None
) -> RunResult:
    """Run PPO and return what was measured; `on_step` is called as steps finish.

    Under torchrun every rank returns the same result. Raises `InputError` where the plan cannot
    run here and `RankError` where a rank fails.
    """
    check_job(job, world_size)
    return launch_ranks(
        _task(job),
        job.plan.world,
        job,
        backend=job.backend,
        timeout_s=job.running.timeout_s,
        on_report=on_step,
        needed_bytes=_static_bytes(job),
        eager=False,  # a communicator is made when it is first used, in the order that links have
    )


def _static_bytes(job: Job) -> float:
    """Return the bytes of all ranks' weights, gradients and moments: four models, float32 main."""
    kinds = kinds_of(job.plan.dtype)
    replicas = job.plan.choice.training.data
    shares = replicas if job.plan.choice.shard_optimizer else 1
    # With gradients, and the frozen model's.
    each = 3 * kinds.weight + kinds.optimizer / shares
    actor, critic = parameters(job.plan.actor), parameters(job.plan.critic, "critic")
    of_critic = each if job.plan.critic_learns else kinds.weight
    return float((each * actor + of_critic * critic) * replicas)


def _task(job: Job) -> Callable[..., RunResult]:
    """Return what a rank does by the engine that the job asks for."""
    if job.running.engine == "puzzle":
        return run_rank
    from puzzle.run.deepspeed_rank import run_baseline
    from puzzle.run.hybrid import told

    log.info(told(job.backend, wanted=job.running.hybrid_engine))

    return run_baseline


def _check_deepspeed(job: Job) -> None:
    """Refuse what the baseline cannot do."""
    layouts = job.plan.choice.training, job.plan.choice.generation
    if any(layout.data != layout.world for layout in layouts):
        raise InputError(
            "running.engine 'deepspeed' is data parallel only: give both layouts of [choice]"
            f" data = {job.plan.world} and pipeline = tensor = 1"
        )
    if job.plan.dtype == "float16" and job.backend == "gloo":
        raise InputError(
            "running.engine 'deepspeed' has no float16 on CPUs; set running.dtype to bfloat16"
        )
    for name, model in (("actor", job.plan.actor), ("critic", job.plan.critic)):
        kin = model.family != "llama", model.qkv_bias, model.qk_norm, model.head_dim
        if any((*kin, model.rope_scaling)):
            raise InputError(
                f"running.engine 'deepspeed' is a baseline of plain LLaMAs, but {name} has biases,"
                " norms, heads or positions of another; use the engine 'puzzle'"
            )
    _check_plain(job)
    if job.running.checkpoint or job.running.save_to:
        raise InputError(
            "running.engine 'deepspeed' is a baseline to measure: it writes no checkpoints; leave"
            " running.checkpoint and running.save_to empty"
        )
    if find_spec("deepspeed") is None:
        raise InputError("running.engine 'deepspeed' needs the package deepspeed (extra puzzle)")


def _check_plain(job: Job) -> None:
    """Refuse what DeepSpeed's loop is not told here."""
    ppo, running = job.ppo, job.running
    for name, value, plain in (
        ("ppo.algorithm", ppo.algorithm, "ppo"),
        ("ppo.samples", ppo.samples, 1),
        ("ppo.ratio", ppo.ratio, "token"),
        ("ppo.mini_batch", ppo.mini_batch, 0),
        ("ppo.entropy", ppo.entropy, 0.0),
        ("ppo.kl_in", ppo.kl_in, "reward"),
        ("ppo.kl_target", ppo.kl_target, 0.0),
        ("ppo.normalise_rewards", ppo.normalise_rewards, "none"),
        ("ppo.normalise_values", ppo.normalise_values, False),
        ("ppo.overlong_buffer", ppo.overlong_buffer, 0),
        ("running.evaluate_every", running.evaluate_every, 0),
        ("choice.recompute", job.plan.choice.recompute, False),
        ("choice.shard_optimizer", job.plan.choice.shard_optimizer, False),
        ("running.sampling.top_k", running.sampling.top_k, 0),
        ("running.sampling.top_p", running.sampling.top_p, 0.0),
    ):
        if value != plain:
            raise InputError(
                f"running.engine 'deepspeed' is a baseline without {name}, which is {value!r}; set"
                f" it to {plain!r}, or use the engine 'puzzle'"
            )
    if job.plan.dtype == "float64":
        raise InputError("running.engine 'deepspeed' has no float64; use the engine 'puzzle'")


def _check_learning(job: Job, tokenizer: Tokenizer) -> None:
    """Refuse mini-batches that cannot be cut, and ends that cannot come."""
    ppo, work, sampling = job.ppo, job.plan.work, job.running.sampling
    replicas = job.plan.choice.training.data
    mini = ppo.mini_batch or work.batch
    if work.batch % mini or mini % (replicas * work.micro_batch):
        raise InputError(
            f"ppo.mini_batch is {mini}, expected a divisor of work.batch ({work.batch}) and a"
            f" multiple of choice.training.data x work.micro_batch ({replicas} x"
            f" {work.micro_batch})"
        )
    if job.plan.critic_learns != ppo.critic_learns:
        raise InputError(
            f"ppo.algorithm is {ppo.algorithm!r}, but the plan is"
            f" {'with' if job.plan.critic_learns else 'without'} a critic; plan anew"
        )
    if work.batch % ppo.samples:
        raise InputError(
            f"ppo.samples is {ppo.samples}, expected a divisor of work.batch ({work.batch}), which"
            " counts answers"
        )
    if ppo.overlong_buffer > work.answer:
        raise InputError(
            f"ppo.overlong_buffer is {ppo.overlong_buffer}, expected at most work.answer"
            f" ({work.answer})"
        )
    if ppo.missing_end != "none" and not sampling.stop_at_end:
        raise InputError(
            f"ppo.missing_end is {ppo.missing_end!r}, but running.sampling.stop_at_end is false, so"
            " no answer has an end; set one of them otherwise"
        )
    outside = [t for t in end_tokens(job.running, tokenizer) if t >= job.plan.actor.vocabulary]
    if outside:
        raise InputError(
            f"end token {outside[0]} is outside the actor's vocabulary"
            f" ({job.plan.actor.vocabulary}); set running.sampling.end_tokens"
        )


def _check_graphs(job: Job) -> None:
    """Refuse graphs where no decode step can be captured."""
    stages = job.plan.choice.generation.pipeline
    if job.backend == "gloo":
        raise InputError(
            "running.cuda_graphs needs CUDA devices (--backend nccl); leave it false on CPUs"
        )
    if stages > 1:
        raise InputError(
            f"running.cuda_graphs captures a decode step of one stage, but the generation layout"
            f" has {stages}; give choice.generation pipeline = 1 or leave cuda_graphs false"
        )
    if job.running.engine == "deepspeed":
        raise InputError("running.cuda_graphs is of the engine 'puzzle' only; leave it false")


def check_job(job: Job, world_size: int | None = None) -> None:
    """Raise InputError, before any rank is started, for what could not run."""
    check(job.plan)
    if job.seed < 0:
        raise InputError(f"--seed is {job.seed}, expected 0 or more")
    given = world_size or int(os.environ.get("WORLD_SIZE", job.plan.world))
    if given != job.plan.world:
        raise InputError(
            f"{given} ranks were given, but the plan's layouts have {job.plan.world}; set devices"
            " or the layouts of [choice]"
        )
    if job.running.engine == "deepspeed":
        _check_deepspeed(job)
    if job.running.cuda_graphs:
        _check_graphs(job)
    tokenizer = load_tokenizer(job.running.tokenizer)
    if tokenizer.size > job.plan.actor.vocabulary:
        raise InputError(
            f"the tokenizer has {tokenizer.size} tokens, the actor's vocabulary only"
            f" {job.plan.actor.vocabulary}; raise actor.vocabulary"
        )
    if job.plan.critic.vocabulary < job.plan.actor.vocabulary:
        raise InputError(
            f"the critic's vocabulary ({job.plan.critic.vocabulary}) is smaller than the actor's"
            f" ({job.plan.actor.vocabulary}); they read the same tokens"
        )
    _check_learning(job, tokenizer)
    prompts = prompts_for(job.running, tokenizer, job.plan.work.prompt)
    if told := prompts.told(job.plan.work.prompt):
        log.warning(told)
    check_rewards(job.running, prompts.rows)
    held = held_prompts(job.running, tokenizer, job.plan.work.prompt)
    if held is not None:
        check_rewards(job.running, held.rows)
    _check_weights(job)
    _check_folders(job)
    resumed = check_resume(job)
    if resumed:
        log.info(resumed)


def _check_weights(job: Job) -> None:
    """Refuse folders of weights that are not of the plan's models; no weight is read."""
    from puzzle.run.checkpoint_files import checkpoint_weights

    running, plan = job.running, job.plan
    for folder in filter(None, (running.actor_weights, running.reference_weights)):
        checkpoint_weights(folder, plan.actor, "actor", job.seed)
    for folder in filter(None, (running.critic_weights, running.reward_weights)):
        checkpoint_weights(folder, plan.critic, "critic", job.seed)


def _check_folders(job: Job) -> None:
    """Make the folders that are written to, or refuse them now rather than after the last step."""
    for field in ("checkpoint", "save_to"):
        name = getattr(job.running, field)
        if not name:
            continue
        try:
            Path(name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"running.{field}: {name!r} cannot be made: {error.strerror}"
            ) from error
        if not os.access(name, os.W_OK):
            raise InputError(f"running.{field}: {name!r} cannot be written to")


def run_rank(rank: int, report: OnStep, job: Job) -> RunResult:
    """Do one rank's whole work; only rank 0 reports."""
    import torch

    from puzzle.run.readers import readers_of
    from puzzle.run.train import Trainer

    cuda = job.backend == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    with closing(Trainer(job, device, readers_of(job))) as trainer:
        return _aligned(rank, report, job, trainer)


def _aligned(rank: int, report: OnStep, job: Job, trainer: Trainer) -> RunResult:
    """Go on from a checkpoint if there is one, do all steps, write what is asked for."""
    import torch

    from puzzle.run.baselines import measure_switches
    from puzzle.run.checkpoint import load, save
    from puzzle.run.checkpoint_files import save_weights

    running, plan, cuda = job.running, job.plan, job.backend == "nccl"
    folder = Path(running.checkpoint) if running.checkpoint else None

    about = about_of(job) if folder else None
    found = None
    if folder and about:
        found = load(folder, about, trainer.groups, trainer.updates, running.resume)
    first = found.step if found else 0
    if found:
        trainer.adapted = found.adapted
    switches = measure_switches(trainer) if running.baselines else ()
    steps: list[StepFigures] = []
    for number in range(first, running.steps):
        steps.append(trainer.step(number))
        if rank == 0:
            report(steps[-1])
        every = running.checkpoint_every
        due = number + 1 == running.steps or (every and (number + 1) % every == 0)
        if folder and about and due:
            done = about.at(number + 1, trainer.adapted)
            save(folder, done, trainer.groups, trainer.updates, running.checkpoint_keep)
    if running.save_to:
        place, begun = Path(running.save_to), running.actor_weights
        store = trainer.stores["actor"]
        save_weights(place, plan.actor, "actor", trainer.groups, store, begun)
    return RunResult(
        experiment=plan.experiment,
        backend=job.backend,
        device=_device_name(trainer.device),
        world_size=plan.world,
        seed=job.seed,
        first_step=first,
        steps=tuple(steps),
        switches=switches,
        answers=tuple(trainer.texts(trainer.answers)[:4]) if steps else (),
        digest=trainer.digest.hexdigest(),
        peak_bytes=torch.cuda.max_memory_allocated() if cuda else None,
        prompts=len(trainer.prompts.ids),
        prompts_left_out=trainer.prompts.left_out,
        prompts_cut=trainer.prompts.cut,
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()}"
