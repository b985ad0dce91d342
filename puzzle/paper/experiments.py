"""The paper's experiments: its pairs of models by the authors' layouts, and figure 10's cells."""

from functools import cache
from typing import NamedTuple

import msgspec

from puzzle.inputs.cluster import known_clusters
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.workload import Workload


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


FITTED = "published-runs"
"""The experiment whose cases hold the cost model against all published runs."""


def _fitted() -> Experiment:
    return Experiment(
        name=FITTED, about="the cost model against the artifact's 73 distinct runs", method="given"
    )


@cache
def named() -> dict[str, Experiment]:
    """Return the paper's experiments by name."""
    made = [paper(cluster, pair) for cluster, pairs in PAIRS.items() for pair in pairs]
    made += [base(cluster, pair) for cluster, pairs in PAIRS.items() for pair in pairs]
    made += [figure_10(*cell) for cell in FIGURE_10]
    return {experiment.name: experiment for experiment in (*made, _fitted())}
