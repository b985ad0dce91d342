"""The named experiments, and the suites `quick` and `full` as lists of cases."""

from functools import cache
from typing import Literal, NamedTuple

import msgspec

from puzzle.inputs.cluster import known_clusters
from puzzle.inputs.experiment import Choice, Experiment, MethodName
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.inputs.ppo import Ppo, Running
from puzzle.inputs.workload import Workload

Verb = Literal["plan", "simulate", "run", "fit", "published", "repeat"]
"""`fit`, `published` and `repeat` are of the suites only: the cost model, the paper's own runs, and
these again on the GPUs that are here."""


class Case(NamedTuple):
    """One thing to do: a verb on an experiment by a method."""

    verb: Verb
    experiment: str
    method: MethodName


class Pair(NamedTuple):
    """One of the paper's model pairs: sizes and the authors' layouts (P, T)."""

    actor: str
    critic: str
    devices: int
    batch: int
    micro_batch: int
    training: tuple[int, int]
    base_decode: int
    generation: tuple[int, int]
    decode: int


PAIRS: dict[str, tuple[Pair, ...]] = {
    "orion": (
        Pair("7b", "350m", 8, 128, 4, (8, 1), 16, (4, 2), 64),
        Pair("13b", "350m", 16, 256, 4, (8, 2), 32, (4, 4), 128),
        Pair("7b", "7b", 16, 256, 4, (16, 1), 16, (8, 2), 64),
        Pair("13b", "7b", 16, 256, 4, (8, 2), 32, (4, 4), 128),
        Pair("33b", "7b", 32, 128, 2, (32, 1), 4, (16, 2), 64),
    ),
    "phoenix": (
        Pair("7b", "350m", 8, 128, 4, (8, 1), 16, (4, 2), 64),
        Pair("13b", "350m", 16, 256, 4, (8, 2), 32, (4, 4), 128),
        Pair("7b", "7b", 16, 256, 4, (16, 1), 64, (8, 2), 64),
        Pair("13b", "7b", 16, 256, 4, (8, 2), 32, (4, 4), 128),
        Pair("33b", "7b", 32, 128, 2, (32, 1), 8, (8, 4), 32),
    ),
}
"""Specification section 3.1."""

FIGURE_10: tuple[tuple[str, str, int, tuple[int, int, int]], ...] = tuple(
    ("7b", "7b", batch, layout)
    for batch in (128, 256)
    for layout in ((16, 1, 1), (8, 1, 2), (4, 1, 4), (8, 2, 1))
) + tuple(
    ("13b", "7b", batch, layout)
    for batch in (64, 128)
    for layout in ((8, 1, 2), (4, 1, 4), (8, 2, 1))
)
"""Actor, critic, batch, (P, D, T); orion, 16 devices."""


def _layout(pipeline: int, tensor: int, data: int = 1) -> Layout:
    return Layout(pipeline=pipeline, tensor=tensor, data=data)


def paper(cluster: str, pair: Pair) -> Experiment:
    """Return one of the paper's pairs with the authors' layouts."""
    about = known_clusters()[cluster].about
    return Experiment(
        name=f"{cluster}-{pair.actor}-{pair.critic}",
        about=f"the paper's {pair.actor.upper()}/{pair.critic.upper()} on {pair.devices} x {about}",
        actor=pair.actor,
        critic=pair.critic,
        cluster=cluster,
        devices=pair.devices,
        work=Workload(
            batch=pair.batch, micro_batch=pair.micro_batch, decode_micro_batch=pair.decode
        ),
        choice=Choice(
            training=_layout(*pair.training),
            generation=_layout(*pair.generation),
            mapping="interleaved",
        ),
    )


def base(cluster: str, pair: Pair) -> Experiment:
    """Return the pair as PUZZLE-Base ran it: its own decode micro-batch."""
    made = paper(cluster, pair)
    work = msgspec.structs.replace(made.work, decode_micro_batch=pair.base_decode)
    about = f"{made.about}, decode micro-batch of PUZZLE-Base"
    return msgspec.structs.replace(made, name=f"{made.name}-base", about=about, work=work)


def figure_10(actor: str, critic: str, batch: int, layout: tuple[int, int, int]) -> Experiment:
    """Return one cell of figure 10: training only matters."""
    pipeline, data, tensor = layout
    here = _layout(pipeline, tensor, data)
    decode = 32 if actor == "13b" else 16
    return Experiment(
        name=f"ts-{actor}-{critic}-{batch}-{pipeline}-{data}-{tensor}",
        about=f"figure 10: {actor.upper()}/{critic.upper()}, batch {batch}, P-D-T {layout}",
        method="given",
        actor=actor,
        critic=critic,
        devices=16,
        work=Workload(batch=batch, decode_micro_batch=decode),
        choice=Choice(training=here, generation=here),
    )


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


@cache
def named() -> dict[str, Experiment]:
    """Return all experiments by name."""
    made = [paper(cluster, pair) for cluster, pairs in PAIRS.items() for pair in pairs]
    made += [base(cluster, pair) for cluster, pairs in PAIRS.items() for pair in pairs]
    made += [figure_10(*cell) for cell in FIGURE_10]
    made += [_fitted(), *_tinies(), *_learnings()]
    return {experiment.name: experiment for experiment in made}


def _published() -> tuple[Case, ...]:
    """Return what figures 8 to 12 and table 3 need of the model."""
    cases: list[Case] = []
    for cluster, pairs in PAIRS.items():
        for pair in pairs:
            name = f"{cluster}-{pair.actor}-{pair.critic}"
            cases += [Case("simulate", name, method) for method in ("released", "given")]
            cases += [
                Case("simulate", name, "generation"),
                Case("simulate", f"{name}-base", "base"),
            ]
    for actor, critic, batch, layout in FIGURE_10:
        name = f"ts-{actor}-{critic}-{batch}-{'-'.join(map(str, layout))}"
        cases += [Case("simulate", name, method) for method in ("base", "released", "given")]
    return tuple(cases)


FITTED = "published-runs"
"""The experiment whose cases hold the cost model against all published runs."""


def _fitted() -> Experiment:
    return Experiment(
        name=FITTED, about="the cost model against the artifact's 73 distinct runs", method="given"
    )


_PLANS = tuple(
    Case("plan", f"{cluster}-{p.actor}-{p.critic}", method)
    for cluster, pairs in PAIRS.items()
    for p in pairs
    for method in ("auto", "given")
)

_PAPER = (Case("published", FITTED, "given"), Case("fit", FITTED, "given"))

_REAL = tuple(
    Case("run", name, "given")
    for name in (
        "tiny-cpu-1",
        "tiny-cpu-4",
        "tiny-cpu-4-in-turn",
        "tiny-cpu-2",
        "zero3-cpu-2",
        "learn-cpu-2",
    )
)
_MORE_REAL = tuple(
    Case("run", name, "given")
    for name in (
        "tiny-cpu-4-fused", "tiny-cpu-4-replicas", "tiny-cpu-4-slices", "learn-cpu-1",
        "learn-cpu-2-replicas",
    )
)  # fmt: skip

SUITES: dict[str, tuple[Case, ...]] = {
    "quick": (*_PAPER, *_published(), *_PLANS, *_REAL),
    "full": (
        *_PAPER,
        Case("fit", FITTED, "auto"),
        *_published(),
        *_PLANS,
        *_REAL,
        *_MORE_REAL,
    ),
}
