"""The simulator: published rows, exact small timelines, memory rules, exports."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vocab_parallel
from common.artifact import Folder
from common.case import resolve
from common.errors import InputError
from common.files import read_plan, write_plan
from common.teach import taught
from vocab_parallel.artifact import ARTIFACT
from vocab_parallel.inputs.experiment import Experiment, Pipeline
from vocab_parallel.inputs.machine import Machine, at_sequence, known_machines, width_factor
from vocab_parallel.inputs.model import Model, iteration_flops, output_in_layers
from vocab_parallel.paper.experiments import named, short
from vocab_parallel.paper.published import PublishedRow, is_outlier, published
from vocab_parallel.paper.tables import MEMORY, PREFIX
from vocab_parallel.plan.choose import choose, compare
from vocab_parallel.plan.methods import METHODS
from vocab_parallel.plan.plans import Plan, check, make_plan, parameters
from vocab_parallel.simulate.activations import activations_over_time
from vocab_parallel.simulate.export import events, export
from vocab_parallel.simulate.memory import GIB, allocated
from vocab_parallel.simulate.predict import predict
from vocab_parallel.simulate.times import Times, stage_seconds


def errors(row: PublishedRow) -> tuple[float, float]:
    """Relative errors of MFU and of memory."""
    prefix = PREFIX[row.table][row.ranks]
    experiment = named()[f"{prefix}-{row.sequence}-{short(row.vocabulary)}"]
    prediction = predict(make_plan(experiment, row.method))
    paper = row.table in MEMORY
    memory = max(prediction.allocated if paper else prediction.reserved) / GIB
    return 100 * prediction.mfu / row.mfu - 1, memory / row.memory - 1


def all_errors(table: str, ranks: int) -> list[tuple[float, float]]:
    rows = [row for row in published(table) if row.ranks == ranks and not is_outlier(row)]
    return [errors(row) for row in rows]


def largest(found: list[tuple[float, float]]) -> tuple[float, float]:
    return max(abs(mfu) for mfu, _ in found), max(abs(memory) for _, memory in found)


@pytest.mark.parametrize(
    ("table", "ranks", "rows", "mfu", "memory"),
    [
        ("paper-table5", 8, 40, 0.02, 0.005),
        ("seed-full", 8, 39, 0.03, 0.035),
        ("paper-table6", 16, 16, 0.10, 0.036),
    ],
)
def test_published_rows_come_out(
    table: str, ranks: int, rows: int, mfu: float, memory: float
) -> None:
    found = all_errors(table, ranks)
    assert len(found) == rows
    off_mfu, off_memory = largest(found)
    assert off_mfu <= mfu
    assert off_memory <= memory


def test_the_outlier_is_one_row_and_predicted_as_redis_has_it() -> None:
    (row,) = [row for row in published("seed-full") if is_outlier(row)]
    mfu, memory = errors(row)
    assert mfu > 0.4
    assert row.memory * (1 + memory) == pytest.approx(27.63, abs=0.01)


def test_the_machine_peak_is_what_published_mfu_was_divided_by() -> None:
    assert known_machines()["a100-paper"].peak_tflops == 320
    assert known_machines()["a100-seed"].peak_tflops == 312


def test_flops_are_those_of_the_paper() -> None:
    model = Model(vocabulary=256000)
    # artifact, exp_one_host.csv: FLOP of one micro-batch, 5914.169967e10
    assert iteration_flops(model, 1) == pytest.approx(5914.169967e10, rel=1e-9)
    assert output_in_layers(model) == pytest.approx(6.25)


def small(p: int = 2, m: int = 3, layers: int = 8) -> Experiment:
    return Experiment(
        name="small",
        model=Model(layers=layers, hidden=64, heads=4, sequence=32, vocabulary=500),
        pipeline=Pipeline(ranks=p, batches=m),
    )


def test_a_pipeline_of_equal_stages_takes_the_textbook_time() -> None:
    for p, m in ((2, 3), (4, 8), (3, 1)):
        plan = make_plan(small(p, m, layers=p), "baseline")
        times = Times(tuple({("F", 0): 1.0, ("B", 0): 2.0} for _ in range(p)), {})
        assert predict(plan, times, step_s=0.0).iteration_s == pytest.approx((m + p - 1) * 3)


def test_a_delay_between_stages_is_waited_for() -> None:
    plan = make_plan(small(2, 1, layers=2), "baseline")
    times = Times(({("F", 0): 1.0, ("B", 0): 2.0},) * 2, {"p2p": 0.25})
    assert predict(plan, times, step_s=1.0).iteration_s == pytest.approx(6 + 2 * 0.25 + 1)


@given(method=st.sampled_from(sorted(METHODS)), p=st.sampled_from([1, 2, 4]), m=st.integers(1, 12))
def test_no_pass_starts_before_the_one_before_it_ends(method: str, p: int, m: int) -> None:
    played = predict(make_plan(small(p, m), method)).played
    for starts, ends in zip(played.starts, played.ends, strict=True):
        assert all(start >= end for start, end in zip(starts[1:], ends, strict=False))
        assert all(end >= start for start, end in zip(starts, ends, strict=True))


@given(method=st.sampled_from(sorted(METHODS)), m=st.integers(1, 12))
def test_activations_come_back_to_nothing(method: str, m: int) -> None:
    plan = make_plan(small(2, m), method)
    for rank in range(2):
        held = activations_over_time(plan, rank)
        assert held[-1] == pytest.approx(0, abs=1e-3)
        assert min(held) >= -1e-3


def test_all_parameters_are_held_once() -> None:
    totals = {
        method: sum(parameters(plan, rank) for rank in range(4))
        for method in METHODS
        for plan in [make_plan(small(4, 4), method)]
    }
    assert len({*totals.values()}) == 1


def test_two_ranks_for_every_position_halve_what_they_share() -> None:
    one = named()["paper-2048-256k"]
    two = msgspec.structs.replace(
        one, pipeline=msgspec.structs.replace(one.pipeline, tensor_parallel=2)
    )
    for method in METHODS:
        alone, shared = make_plan(one, method), make_plan(two, method)
        for rank in range(8):
            assert 0.5 <= parameters(shared, rank) / parameters(alone, rank) < 0.51
        before, after = predict(alone), predict(shared)
        assert 0.5 < after.iteration_s / before.iteration_s < 0.7
        assert 0.5 < max(after.allocated) / max(before.allocated) < 0.7


def test_a_tied_matrix_is_held_once_where_first_and_last_stage_meet() -> None:
    experiment = small(1, 4)
    model = msgspec.structs.replace(experiment.model, tied=True)
    tied = msgspec.structs.replace(experiment, model=model)
    for method in ("baseline", "v-half", "vocab-1"):
        whole, shared = (parameters(make_plan(e, method), 0) for e in (experiment, tied))
        assert whole - shared == model.vocabulary * model.hidden


def test_memory_is_balanced_by_v_half_with_a_sharded_vocabulary() -> None:
    experiment = named()["half16-4096-256k"]
    naive = allocated(make_plan(experiment, "v-half"))
    ours = allocated(make_plan(experiment, "v-half-vocab-1"))
    assert (max(naive) - min(naive)) / GIB > 30
    assert (max(ours) - min(ours)) / GIB < 2.5


def test_auto_takes_the_fastest_that_fits() -> None:
    experiment = named()["paper-4096-256k"]
    choices = compare(experiment)
    assert {choice.method for choice in choices} == {*METHODS}
    plan, prediction = choose(experiment, choices)
    fitting = [c.prediction.iteration_s for c in choices if c.fits() and c.prediction]
    assert prediction.iteration_s == min(fitting)
    assert plan.method == next(choice.method for choice in choices if choice.fits())


def test_constants_are_interpolated_between_their_points_and_flat_beyond() -> None:
    machine = known_machines()["a100-paper"]
    values = machine.layer_tflops
    assert at_sequence(machine, values, 512) == 188
    assert at_sequence(machine, values, 3072) == pytest.approx(188.5)
    assert at_sequence(machine, values, 99999) == 189
    assert width_factor(3072, 800) == 1
    assert width_factor(6144, 800) > 1


def test_pictures_and_trace_hold_every_pass(tmp_path: Path) -> None:
    plan = make_plan(small(2, 4), "vocab-1")
    prediction = predict(plan)
    files = export(plan, prediction, "small", Folder(tmp_path, "vocab_parallel"))
    assert {file.suffix for file in files} == {".json", ".svg", ".png"}
    trace = json.loads(files[0].read_text())["traceEvents"]
    passes = [event for event in trace if event["ph"] == "X"]
    assert len(passes) == sum(map(len, plan.schedule.programs))
    assert [event["name"] for event in passes if event["tid"] == 0][:2] == ["IF0", "IF1"]
    assert len(events(plan, prediction)) == len(trace)


@pytest.mark.parametrize("everything", [False, True])
def test_what_the_verb_inputs_prints_reads_back_equal(tmp_path: Path, everything: bool) -> None:
    for name, experiment in ARTIFACT.named().items():
        path = tmp_path / f"{name}.toml"
        path.write_text(taught(experiment, everything=everything))
        assert resolve(str(path), {}, Experiment) == experiment


def test_interlaced_loses_the_published_share_on_four_machines() -> None:
    base = named()["paper-2048-256k"]
    slow, fast = (
        stage_seconds(plan, 0) / plan.layers[0]
        for p in (32, 16)
        for plan in [make_plan(_on(base, p), "interlaced")]
    )
    assert fast / slow == pytest.approx(1 - 0.1095, rel=1e-4)


def _on(experiment: Experiment, ranks: int) -> Experiment:
    pipeline = msgspec.structs.replace(experiment.pipeline, ranks=ranks)
    return msgspec.structs.replace(experiment, pipeline=pipeline)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequences": (2048,)}, "equally many"),
        ({"sequences": (4096, 2048)}, "must grow"),
        ({"meeting_share": (0.1,)}, "differ in length"),
        ({"step_ms": 0.0}, "machine.step_ms is 0.0, expected above 0"),
    ],
)
def test_constants_without_sense_are_refused(change: dict[str, object], message: str) -> None:
    given = msgspec.structs.asdict(known_machines()["a100-paper"]) | change
    with pytest.raises(InputError, match=message):
        Machine(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", (9, -1)),
        ("layers", (8,)),
        ("batch_size", 0),
        ("tensor", 3),
        ("method", "baseline"),
        ("method", "vocab-2"),
        ("method", "naive"),
        ("method", "zb-v-vocab-1"),
        ("method", "best"),
        ("schema", "vocab-plan/9"),
    ],
)
def test_a_plan_file_that_was_spoilt_is_refused(tmp_path: Path, field: str, value: object) -> None:
    file = tmp_path / "plan.json"
    plan = make_plan(small(2, 4), "vocab-1")
    write_plan(plan, file)
    assert read_plan(file, Plan, check) == plan
    write_plan(msgspec.structs.replace(plan, **{field: value}), file)
    with pytest.raises(InputError):
        read_plan(file, Plan, check)


def test_layers_of_ones_own_are_taken_or_refused() -> None:
    experiment = small(4, 4)
    given = msgspec.structs.replace(experiment.pipeline, layers=(3, 2, 2, 1))
    experiment = msgspec.structs.replace(experiment, pipeline=given)
    assert make_plan(experiment, "vocab-2").layers == (3, 2, 2, 1)
    with pytest.raises(InputError, match="expected 8 and 8"):
        make_plan(experiment, "v-half")


def test_only_an_a100_is_told_in_the_published_peaks() -> None:
    """Of an H100 they would say 128 % of what it can."""
    for changes, names in (
        ({}, {"mfu", "mfu.of_312", "mfu.of_320"}),
        ({"device": "H100"}, {"mfu"}),
    ):
        asked = vocab_parallel.load("multilingual-8", *(f"{k}={v}" for k, v in changes.items()))
        found = vocab_parallel.simulate(asked).metrics
        shares = {m.name: m.value for m in found if m.name.startswith("mfu")}
        assert {*shares} == names
        assert all(0 < share < 100 for share in shares.values())
