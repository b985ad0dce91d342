"""The artifact's published runs (`data/published_runs.csv`), with what is wrong among them said."""

import csv
from functools import cache
from importlib import resources

from puzzle.inputs.layout import Layout
from puzzle.inputs.workload import Workload
from puzzle.simulate.fit import TimedRun


class PublishedRun(TimedRun, frozen=True, kw_only=True):
    """Means over a log's steps after the first, seconds; None where the log does not print them.

    DeepSpeed-Chat's runs have no layout.
    """

    log: str
    figure: str
    variant: str
    devices: int
    steps: int
    step_s: float
    others_s: float | None
    critic_billions: float | None

    @property
    def pair(self) -> str:
        """Actor and critic as the paper writes them: 7B/350M."""
        return f"{self.actor.upper()}/{self.critic.upper()}"


@cache
def published_runs() -> tuple[PublishedRun, ...]:
    """Return a run per log, in the order of their paths."""
    return tuple(map(_run, table("published_runs.csv")))


@cache
def distinct_runs() -> tuple[PublishedRun, ...]:
    """Return each run of the 3D-parallel system once: figures share logs, and some are copies."""
    found: dict[tuple[float | None, ...], PublishedRun] = {}
    for run in published_runs():
        if run.layout is not None:
            found.setdefault((run.step_s, run.generation_s, run.inference_s), run)
    return tuple(found.values())


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of `paper/data/`; its lines of '#' say where it is from."""
    text = resources.files("puzzle.paper").joinpath(f"data/{name}").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def _run(row: dict[str, str]) -> PublishedRun:
    layout = work = generation = None
    if row["pp"]:
        layout = _layout(row["pp"], row["tp"], row["dp"])
        work = Workload(
            batch=int(row["global_batch"]),
            micro_batch=int(row["micro_batch"]),
            prefill_micro_batch=int(row["prefill_mbs"]),
            decode_micro_batch=int(row["decode_mbs"]),
        )
    if row["shadow_pp"]:
        generation = _layout(row["shadow_pp"], row["shadow_tp"], row["dp"])
    return PublishedRun(
        log=row["log"],
        figure=row["figure"],
        cluster=row["cluster"],
        actor=row["actor"],
        critic=row["critic"],
        variant=row["variant"],
        devices=int(row["gpus"]),
        layout=layout,
        generation_layout=generation,
        work=work,
        mode=row["train_mode"],
        steps=int(row["n_steps"]),
        step_s=float(row["e2e_s"]),
        generation_s=float(row["stage1_gen_s"]),
        inference_s=_number(row["stage2_infer_s"]),
        training_s=float(row["stage3_train_s"]),
        switch_s=_number(row["comm_s"]),
        others_s=_number(row["others_s"]),
        critic_billions=_number(row["critic_params_B"]),
    )


def _layout(pipeline: str, tensor: str, data: str) -> Layout:
    return Layout(pipeline=int(pipeline), tensor=int(tensor), data=int(data))


def _number(text: str) -> float | None:
    return float(text) if text else None
