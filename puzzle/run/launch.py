"""Align by a plan on real ranks.

Started plainly, `launch` starts the ranks on this machine; under torchrun (RANK and WORLD_SIZE are
set) it runs as the one rank that it is.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InputError
from puzzle.inputs.model import parameters
from puzzle.plan.plans import check
from puzzle.run.data import load_prompts, load_tokenizer, prompt_ids
from puzzle.run.member import join, leave
from puzzle.run.ranks import check_machine, check_memory, run_ranks
from puzzle.run.rewards import programmed
from puzzle.run.settings import Job, RunResult, StepFigures

if TYPE_CHECKING:
    import torch

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
    task = _task(job)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank = int(os.environ["RANK"])
        timeout = job.running.timeout_s
        join(rank, job.plan.world, backend=job.backend, timeout_s=timeout, where="env://")
        result = task(rank, on_step, job)
        leave()
        return result
    check_machine(job.plan.world, job.backend)
    check_memory(_static_bytes(job), job.backend)
    results = run_ranks(
        task,
        job.plan.world,
        job,
        backend=job.backend,
        timeout_s=job.running.timeout_s,
        on_report=on_step,
    )
    return results[0]


def _static_bytes(job: Job) -> float:
    """Return the bytes of all ranks' weights, gradients and moments: four models, float32 main."""
    trained = 16 if job.running.dtype == "float32" else 18
    frozen = 4 if job.running.dtype == "float32" else 2
    models = parameters(job.plan.actor) + parameters(job.plan.critic, "critic")
    return float((trained + frozen) * models * job.plan.choice.training.data)


def _task(job: Job) -> Callable[..., RunResult]:
    """Return what a rank does by the engine that the job asks for."""
    if job.running.engine == "puzzle":
        return run_rank
    from puzzle.run.deepspeed_engine import run_baseline
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
    if job.running.dtype == "float16" and job.backend == "gloo":
        raise InputError(
            "running.engine 'deepspeed' has no float16 on CPUs; set running.dtype to bfloat16"
        )
    if job.running.checkpoint or job.running.save_to:
        raise InputError(
            "running.engine 'deepspeed' is a baseline to measure: it writes no checkpoints; leave"
            " running.checkpoint and running.save_to empty"
        )
    if find_spec("deepspeed") is None:
        raise InputError("running.engine 'deepspeed' needs the package deepspeed (extra puzzle)")


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
    prompt_ids(load_prompts(job.running.prompts), tokenizer, job.plan.work.prompt)
    programmed(job.running.reward)
    _check_weights(job)
    _check_folders(job)


def _check_weights(job: Job) -> None:
    """Refuse folders of weights that are not of the plan's models; no weight is read."""
    from puzzle.run.checkpoint_files import checkpoint_weights

    running, plan = job.running, job.plan
    if running.actor_weights:
        checkpoint_weights(running.actor_weights, plan.actor, "actor", job.seed)
    if running.critic_weights:
        checkpoint_weights(running.critic_weights, plan.critic, "critic", job.seed)


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

    from puzzle.run.baselines import measure_switches
    from puzzle.run.checkpoint import About, load, save
    from puzzle.run.checkpoint_files import save_weights
    from puzzle.run.train import Trainer, readers_of

    cuda = job.backend == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    trainer = Trainer(job, device, readers_of(job))
    running, plan = job.running, job.plan
    folder = Path(running.checkpoint) if running.checkpoint else None

    def about(step: int) -> About:
        return About(plan.actor, plan.critic, job.seed, step, plan.choice.training)

    first = load(folder, about(0), trainer.groups, trainer.updates) if folder else 0
    switches = measure_switches(trainer) if running.baselines else ()
    steps: list[StepFigures] = []
    for number in range(first, running.steps):
        steps.append(trainer.step(number))
        if rank == 0:
            report(steps[-1])
        every = running.checkpoint_every
        due = number + 1 == running.steps or (every and (number + 1) % every == 0)
        if folder and due:
            save(folder, about(number + 1), trainer.groups, trainer.updates)
    if running.save_to:
        save_weights(
            Path(running.save_to), plan.actor, "actor", trainer.groups, trainer.stores["actor"]
        )
    return RunResult(
        experiment=plan.experiment,
        backend=job.backend,
        device=_device_name(device),
        world_size=plan.world,
        seed=job.seed,
        first_step=first,
        steps=tuple(steps),
        switches=switches,
        answers=tuple(trainer.texts(trainer.answers)[:4]) if steps else (),
        digest=trainer.digest.hexdigest(),
        peak_bytes=torch.cuda.max_memory_allocated() if cuda else None,
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()}"
