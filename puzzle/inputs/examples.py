"""Experiments to start one's own from: a question to plan, and PPO on this machine's ranks."""

import msgspec

from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.inputs.ppo import Ppo, Running
from puzzle.inputs.workload import Workload


def examples() -> dict[str, Experiment]:
    """Return them by name."""
    return {e.name: e for e in (question(), *_tinies(), *_learnings())}


def hardware(experiment: Experiment) -> str:
    """Return what an experiment needs."""
    if experiment.cluster == "cpu":
        return "CPU"
    return f"CPU to plan, {experiment.world} GPUs to run"


def question() -> Experiment:
    """Return a pair of models on GPUs of which no layout is known yet."""
    return Experiment(
        name="align-7b-7b",
        about="a 7B actor and critic on 16 GPUs in nodes of 8: the layouts are searched",
        devices=16,
        work=Workload(batch=128),
    )


def _layout(pipeline: int, tensor: int, data: int = 1) -> Layout:
    return Layout(pipeline=pipeline, tensor=tensor, data=data)


def tiny(name: str, about: str, choice: Choice, **running: object) -> Experiment:
    """Return a small LLaMA that is really aligned on CPU ranks; text is bytes."""
    world = choice.training.world
    return Experiment(
        name=name,
        about=about,
        method="given",
        actor=Llama(layers=4, hidden=64, heads=4, ffn=128, vocabulary=260),
        critic=Llama(layers=4, hidden=32, heads=4, ffn=64, vocabulary=260),
        cluster="cpu",
        devices=world,
        work=Workload(
            batch=16,
            prompt=32,
            answer=16,
            micro_batch=2,
            inference_tokens=192,
            prefill_micro_batch=2,
            decode_micro_batch=4,
        ),
        choice=choice,
        running=msgspec.convert({"steps": 6, **running}, Running),
    )


ONE = Choice(schedule="sequential", inference="sequential")
SWITCHED = Choice(training=_layout(4, 1), generation=_layout(2, 2), mapping="interleaved")


def _tinies() -> list[Experiment]:
    """Return the runs of this machine: the same task by layouts and schedules that must agree."""
    in_turn = msgspec.structs.replace(SWITCHED, schedule="sequential", inference="sequential")
    fused = msgspec.structs.replace(SWITCHED, schedule="fused")
    replicas = Choice(training=_layout(2, 1, 2), generation=_layout(1, 1, 4))
    slices = Choice(training=_layout(2, 2), generation=_layout(1, 4), mapping="interleaved")
    two = Choice(training=_layout(1, 1, 2), generation=_layout(1, 1, 2), schedule="sequential")
    return [
        tiny("tiny-cpu-1", "PPO in one process: the yardstick of the others", ONE),
        tiny("tiny-cpu-4", "PPO on 4 ranks, switch and merged training", SWITCHED, baselines=True),
        tiny("tiny-cpu-4-in-turn", "the same, one model after the other", in_turn),
        tiny("tiny-cpu-4-fused", "the same, actor and critic from opposite ends", fused),
        tiny("tiny-cpu-4-replicas", "2 replicas that generate as 4", replicas, baselines=True),
        tiny("tiny-cpu-2", "PPO on 2 data-parallel ranks", two),
        tiny("zero3-cpu-2", "the same by DeepSpeed ZeRO-3, the baseline", two, engine="deepspeed"),
        tiny("tiny-cpu-4-slices", "tensor parallel, interleaved", slices, baselines=True),
    ]


LEARNING = 60
"""Steps of the learning experiments."""


def learning(name: str, about: str, choice: Choice) -> Experiment:
    """Return a run that really raises a reward: the part of lower-case letters in the answers."""
    body = Llama(layers=2, hidden=32, heads=4, ffn=64, vocabulary=260)
    made = tiny(
        name,
        about,
        choice,
        steps=LEARNING,
        reward="letters:abcdefghijklmnopqrstuvwxyz ",
        actor_optimizer={"rate": 0.01, "least_rate": 0.001},
        critic_optimizer={"rate": 0.003, "least_rate": 0.0003},
    )
    work = Workload(
        batch=32,
        prompt=32,
        answer=8,
        micro_batch=8,
        inference_tokens=640,
        prefill_micro_batch=16,
        decode_micro_batch=16,
    )
    ppo = Ppo(kl=0.02, whiten=True)
    return msgspec.structs.replace(made, actor=body, critic=body, work=work, ppo=ppo)


def _learnings() -> list[Experiment]:
    switched = Choice(training=_layout(2, 1), generation=_layout(1, 2))
    replicas = Choice(training=_layout(1, 1, 2), generation=_layout(2, 1))
    return [
        learning("learn-cpu-1", "a tiny model raises a programmed reward, one process", ONE),
        learning("learn-cpu-2", "the same on 2 ranks, switch and merged training", switched),
        learning("learn-cpu-2-replicas", "the same on 2 replicas, which generate as one", replicas),
    ]
