"""Memory as predicted: states, live sets from the pass lists, and what real ranks have alive."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from common.ranks import run_ranks
from puzzle import experiments as named
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.inputs.savings import NONE, Savings
from puzzle.inputs.workload import Workload
from puzzle.plan.check import peak_live
from puzzle.plan.live import fused_pairs, live_bytes
from puzzle.plan.plans import make_plan
from puzzle.plan.schedules import make_schedule
from puzzle.run.settings import Job
from puzzle.simulate.held import states
from puzzle.simulate.predict import Predicted, predict
from tests.puzzle.peaks import peaks

pytestmark = pytest.mark.timeout(600)


def test_states_are_eighteen_bytes_a_parameter_while_there_are_gradients():
    model = Llama(layers=2, hidden=8, heads=2, ffn=8, vocabulary=10)
    held = 2 * (4 * 64 + 3 * 64 + 16) + 8
    assert states(model, model, Layout()) == 18 * (2 * held + 2 * 80 + 80 + 8)


@pytest.mark.parametrize("schedule", ["sequential", "merged", "fused"])
@pytest.mark.parametrize(("stages", "batches"), [(1, 3), (2, 1), (4, 2), (4, 6), (6, 4), (8, 3)])
def test_what_is_live_is_what_the_pass_list_holds(schedule: str, stages: int, batches: int):
    draw = np.random.default_rng(stages * batches)
    actor, critic = draw.uniform(1, 5, (2, stages))
    found = live_bytes(schedule, stages, batches, actor, critic, 1.3)
    for rank, program in enumerate(make_schedule(schedule, stages, batches, 1.3).programs):
        most, now = 0.0, {"actor": 0, "critic": 0}
        for item in program:
            now[item.model] += {"F": 1, "B": -1}.get(item.kind, 0)
            most = max(most, now["actor"] * actor[rank] + now["critic"] * critic[rank])
        assert found[rank] == pytest.approx(most)


def test_the_fused_counts_are_at_most_those_of_either_model_alone():
    schedule = make_schedule("fused", 4, 8, 1.0)
    alone = peak_live(schedule, "actor"), peak_live(schedule, "critic")
    for rank, pairs in enumerate(fused_pairs(4, 8, 1.0)):
        assert max(a for a, _ in pairs) == alone[0][rank]
        assert max(c for _, c in pairs) == alone[1][rank]
        assert max(map(sum, pairs)) <= alone[0][rank] + alone[1][rank]


BODIES = (
    Llama(layers=4, hidden=256, heads=4, ffn=512, vocabulary=512),
    Llama(layers=4, hidden=128, heads=4, ffn=512, vocabulary=512, kv_heads=2),
)


def job(
    layouts: tuple[str, str], schedule: str, micro: int, dtype: str, savings: Savings = NONE
) -> tuple[Experiment, Job]:
    """Return a question, and what a rank is told of it; layouts as p, t and d."""
    train, generate = (
        Layout(**dict(zip(("pipeline", "tensor", "data"), map(int, text), strict=True)))
        for text in layouts
    )
    base = named()["tiny-cpu-1"]
    work = Workload(
        batch=16, prompt=32, answer=16, micro_batch=micro, inference_tokens=192,
        prefill_micro_batch=2, decode_micro_batch=4,
    )  # fmt: skip
    asked = msgspec.structs.replace(
        base,
        actor=BODIES[0],
        critic=BODIES[1],
        work=work,
        devices=train.world,
        running=msgspec.structs.replace(base.running, dtype=dtype, steps=4),
        choice=Choice(training=train, generation=generate, schedule=schedule, **savings._asdict()),
    )
    return asked, Job(make_plan(asked, "given"), asked.ppo, asked.running, 0, "gloo")


FEW = (
    (("111", "111"), "sequential", 4, "float32"),
    (("211", "211"), "fused", 2, "bfloat16"),
    (("111", "111"), "merged", 8, "float32", Savings(recompute=True)),
    (("112", "112"), "sequential", 2, "bfloat16", Savings(shard_optimizer=True)),
)
MANY = (
    (("111", "111"), "merged", 1, "bfloat16"),
    (("211", "121"), "merged", 2, "float32"),
    (("111", "111"), "merged", 16, "float32"),
    (("111", "111"), "sequential", 2, "float64"),
    (("112", "121"), "sequential", 2, "bfloat16"),
    (("121", "211"), "merged", 4, "float32"),
    (("121", "112"), "sequential", 1, "bfloat16"),
    (("211", "112"), "fused", 4, "float32"),
    (("211", "121"), "sequential", 8, "bfloat16"),
    (("411", "221"), "merged", 2, "float32"),
    (("411", "141"), "sequential", 4, "bfloat16"),
    (("221", "141"), "merged", 2, "bfloat16"),
    (("221", "411"), "fused", 4, "float32"),
    (("212", "114"), "merged", 1, "float32"),
    (("212", "221"), "fused", 2, "bfloat16"),
    (("122", "212"), "merged", 4, "float32"),
    (("114", "141"), "sequential", 4, "float32"),
    (("122", "411"), "merged", 8, "bfloat16"),
    (("111", "111"), "sequential", 4, "bfloat16", Savings(recompute=True)),
    (("112", "112"), "merged", 8, "float32"),
    (("411", "114"), "fused", 2, "float32"),
)
"""Training and generation layout, schedule, micro-batch, precision, and what is saved."""


def check_peaks(cases: Sequence[tuple[Any, ...]]) -> None:
    """Hold the predicted peak of each stage against what real ranks have alive at once."""
    made = [job(*case) for case in cases]
    for world in sorted({one.plan.world for _, one in made}):
        mine = [(asked, one) for asked, one in made if one.plan.world == world]
        found = run_ranks(peaks, world, [one for _, one in mine], eager=False)
        for number, (asked, one) in enumerate(mine):
            told = predict(one.plan, asked.machines).memory
            for stage, wanted in (
                ("generation", told.generation),
                ("inference", told.inference),
                ("training", max(told.training, told.update)),
            ):
                most = max(by_rank[number][stage] for by_rank in found)
                assert wanted == pytest.approx(most, rel=0.1), (one.plan.choice, stage)


def test_what_ranks_have_alive_is_what_was_predicted():
    check_peaks(FEW)


@pytest.mark.slow
def test_what_ranks_have_alive_is_what_was_predicted_in_many_layouts():
    check_peaks(MANY)


def test_float32_is_planned_with_its_own_bytes():
    """The same plan was once priced alike in both."""
    base = msgspec.structs.replace(named()["align-7b-7b"], devices=8)
    layout = Layout(pipeline=4, data=2)
    choice = Choice(training=layout, generation=Layout(tensor=8))
    used: dict[str, Predicted] = {}
    for dtype in ("bfloat16", "float32"):
        running = msgspec.structs.replace(base.running, dtype=dtype)
        asked = msgspec.structs.replace(base, choice=choice, running=running)
        plan = make_plan(asked, "given")
        assert plan.dtype == dtype
        used[dtype] = predict(plan, asked.machines)
        assert plan.switch is not None
    half, whole = used["bfloat16"], used["float32"]
    assert whole.memory.peak > 1.15 * half.memory.peak
    assert whole.times.switch > 1.9 * half.times.switch
    assert make_plan(base, "given").dtype == "bfloat16"
    assert make_plan(named()["tiny-cpu-1"], "given").dtype == "float32"


def test_constants_measured_on_a_cpu_keep_its_precision():
    base = named()["tiny-cpu-1"]
    own = msgspec.structs.replace(base, cluster=base.machines)
    assert (base.dtype, own.dtype) == ("float32", "float32")
