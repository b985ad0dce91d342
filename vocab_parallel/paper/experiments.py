"""The paper's experiments, and the suites `quick` and `full` as lists of cases."""

from functools import cache
from typing import NamedTuple

import msgspec

from common.artifact import Case, with_field
from common.record import Axis
from vocab_parallel.inputs.examples import examples
from vocab_parallel.inputs.experiment import Experiment, MethodName, Pipeline, Training
from vocab_parallel.inputs.machine import known_machines
from vocab_parallel.inputs.model import Model
from vocab_parallel.simulate.answer import DRAWN

SEQUENCES = (2048, 4096)
VOCABULARIES = (32000, 64000, 128000, 256000)
FIVE: tuple[MethodName, ...] = ("baseline", "redis", "vocab-1", "vocab-2", "interlaced")
HALVES: tuple[MethodName, ...] = ("v-half", "v-half-vocab-1")
EVERY: tuple[MethodName, ...] = (*FIVE, "naive", *HALVES, "v-half-vocab-2")

_KEPT = {8: 2, 16: 2}
"""Layers left on the last stage (redis) at sequence 2048, vocabulary 128k, by ranks: the artifact
sets 2 for 8 GPUs and the published MFU implies 2 for 16, where the min-max rule gives 1."""


class Size(NamedTuple):
    """One of the paper's models (Tables 1 and 2)."""

    ranks: int
    layers: int
    hidden: int
    heads: int


EIGHT = Size(8, 32, 3072, 24)
SIXTEEN = Size(16, 48, 4096, 32)
THIRTY_TWO = Size(32, 64, 5120, 40)
HALF_SIXTEEN = Size(16, 32, 4096, 32)
HALF_TWENTY_FOUR = Size(24, 48, 5120, 40)
HALF_THIRTY_TWO = Size(32, 64, 6144, 48)


def short(vocabulary: int) -> str:
    """Return 32000 as 32k."""
    return f"{vocabulary // 1000}k"


def setting(prefix: str, size: Size, sequence: int, vocabulary: int, machine: str) -> Experiment:
    """Return one setting of a published table."""
    by_hand = (sequence, vocabulary) == (2048, 128000)
    kept = _KEPT.get(size.ranks) if by_hand else None
    return Experiment(
        name=f"{prefix}-{sequence}-{short(vocabulary)}",
        about=f"{size.layers} layers, hidden {size.hidden}, {size.ranks} GPUs, sequence {sequence},"
        f" vocabulary {short(vocabulary)}",
        model=Model(
            layers=size.layers,
            hidden=size.hidden,
            heads=size.heads,
            sequence=sequence,
            vocabulary=vocabulary,
        ),
        pipeline=Pipeline(ranks=size.ranks, final_stage_layers=kept),
        machine=machine,
        training=Training(dtype="bfloat16", gradients="dtype"),
    )


def v_half_setting(size: Size, sequence: int, vocabulary: int) -> Experiment:
    """Return one setting of Table 6.

    These runs are of a later code base: the artifact's later constants (faster attention), with
    the paper's output layer, in which there is no attention, and its denominator of 320 TFLOP/s.
    """
    base = setting(f"half{size.ranks}", size, sequence, vocabulary, "a100-seed")
    later = msgspec.structs.replace(
        known_machines()["a100-seed"],
        about="a100-seed with the paper's output layer and peak",
        peak_tflops=known_machines()["a100-paper"].peak_tflops,
        output_tflops=known_machines()["a100-paper"].output_tflops,
    )
    return msgspec.structs.replace(base, constants=later)


def curve() -> Experiment:
    """Return the correctness curve: 1000 steps, all methods on top of each other (§6.5)."""
    return Experiment(
        name="curve-cpu-2",
        about="1000 steps on a real text (bytes) on 2 CPU ranks: all methods' losses overlap",
        model=Model(layers=4, hidden=32, heads=2, sequence=32, vocabulary=256),
        pipeline=Pipeline(ranks=2, batches=4, batch_size=2),
        training=Training(
            dtype="float32",
            steps=1000,
            learning_rate=3e-3,
            tokens="sonnets",
            timeout_s=300.0,
        ),
    )


def replayed() -> Experiment:
    """Return the artifact's largest vocabulary for one GPU: every rank in turn, fewer batches.

    Live micro-batches reach their peak after p + 2, so 32 show the memory of 128.
    """
    base = setting("replay", EIGHT, 2048, 256000, "a100-seed")
    return msgspec.structs.replace(
        base,
        about=f"{base.about}; one GPU carries out each rank's program in turn",
        pipeline=msgspec.structs.replace(base.pipeline, batches=32),
        training=Training(dtype="bfloat16", replay_rank=-1),
    )


def wide_cpu() -> Experiment:
    """Return passes long enough for the simulator to be held against real ranks."""
    return Experiment(
        name="wide-cpu-2",
        about="passes of some 50 ms on 2 CPU ranks: measured beside simulated iterations",
        model=Model(layers=4, hidden=256, heads=4, sequence=256, vocabulary=8000),
        pipeline=Pipeline(ranks=2, batches=8, batch_size=2),
        training=Training(steps=4, timeout_s=300.0),
    )


@cache
def named() -> dict[str, Experiment]:
    """Return the paper's experiments by name."""
    settings = [(s, v) for s in SEQUENCES for v in VOCABULARIES]
    experiments = [setting("paper", EIGHT, s, v, "a100-paper") for s, v in settings]
    experiments += [setting("seed", EIGHT, s, v, "a100-seed") for s, v in settings]
    experiments += [setting("paper16", SIXTEEN, s, v, "a100-paper") for s, v in settings]
    experiments += [setting("paper32", THIRTY_TWO, s, v, "a100-paper") for s, v in settings]
    for size in (HALF_SIXTEEN, HALF_TWENTY_FOUR, HALF_THIRTY_TWO):
        experiments += [v_half_setting(size, s, v) for s, v in settings]
    experiments += [wide_cpu(), curve(), replayed()]
    return {experiment.name: experiment for experiment in experiments}


QUICK = "seed-4096-256k"
"""The artifact's quick experiment, whose schedules the report draws."""


def suites() -> dict[str, list[Case]]:
    """Return the suites."""
    tables = [*_table("seed", FIVE), *_table("paper", FIVE)]
    real = [_case("run", "tiny-cpu-1", "baseline"), *_runs("tiny-cpu-4", FIVE)]
    full = [
        *_plans("seed"),
        *_plans("paper"),
        *tables,
        *_table("paper16", FIVE),
        *_table("half16", HALVES),
        *real,
        *_runs("tiny-cpu-4", tuple(method for method in EVERY if method not in FIVE)),
        *_runs("tiny-cpu-2", EVERY),
        *_runs("wide-cpu-2", FIVE),
        *_runs("curve-cpu-2", FIVE),
    ]
    return {"quick": [_case("plan", QUICK, "auto"), *tables, *real], "full": full}


def _case(verb: str, name: str, method: MethodName, **marks: Axis) -> Case:
    experiment = with_field((named() | examples())[name], "pipeline.method", method)
    return Case(verb=verb, experiment=experiment, marks=marks)


def _table(prefix: str, methods: tuple[MethodName, ...]) -> list[Case]:
    names = [f"{prefix}-{s}-{short(v)}" for s in SEQUENCES for v in VOCABULARIES]
    return [
        _case("simulate", name, method, **{DRAWN: name == QUICK})
        for name in names
        for method in methods
    ]


def _plans(prefix: str) -> list[Case]:
    settings = [(s, v) for s in SEQUENCES for v in VOCABULARIES]
    return [_case("plan", f"{prefix}-{s}-{short(v)}", "auto") for s, v in settings]


def _runs(name: str, methods: tuple[MethodName, ...]) -> list[Case]:
    return [_case("run", name, method) for method in methods]
