"""The artifact's own runs on the devices that are here: scaled, started by torchrun, read back."""

import logging
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import msgspec
import pytest

from common.artifact import Ask, Case, Folder
from common.suites import How, do_all
from puzzle.artifact import ARTIFACT
from puzzle.inputs.experiment import Experiment
from puzzle.inputs.model import Llama
from puzzle.inputs.workload import Workload
from puzzle.paper.logs import read_log
from puzzle.paper.measured import measured, measured_figures, measured_table
from puzzle.paper.repeatable import repeatable, too_large
from puzzle.paper.repeating import StartError, start
from puzzle.paper.repeats import LeftOut, Repeated, repeated
from puzzle.plan.plans import make_plan
from puzzle.run.step_log import latency_line

pytestmark = pytest.mark.timeout(900)

TINY = Llama(layers=2, hidden=32, heads=4, ffn=64, vocabulary=260)


def small(experiment: Experiment) -> Experiment:
    """Return a run of the artifact with its layouts and schedule, but a tiny model and batch."""
    work = Workload(
        batch=8, prompt=32, answer=4, micro_batch=2, prefill_micro_batch=2, decode_micro_batch=4
    )
    short = {"steps": 3, "dtype": "float32", "timeout_s": 300.0}
    running = msgspec.structs.replace(experiment.running, **short)
    changed = {"actor": TINY, "critic": TINY, "work": work, "running": running}
    return msgspec.structs.replace(experiment, **changed)


def runs(devices: int, *ends: str) -> list[Repeated]:
    found = [run for run in repeated(devices) if isinstance(run, Repeated)]
    return [
        run._replace(experiment=small(run.experiment))
        for run in found
        if run.experiment.name in {f"gpus{devices}-{end}" for end in ends}
    ]


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8, 16, 20, 32])
def test_every_run_fits_the_devices_it_is_scaled_to(devices: int):
    names = set[str]()
    for run in repeated(devices):
        if isinstance(run, LeftOut):
            assert devices < 16
            continue
        plan = make_plan(run.experiment, run.experiment.method)
        assert plan.world <= devices
        assert plan.world & (plan.world - 1) == 0
        assert run.experiment.name not in names
        names.add(run.experiment.name)
    shown = {s.figure for r in repeated(devices) if isinstance(r, Repeated) for s in r.shown}
    assert shown == {"8", "9", "11", "12", "table 3"} | ({"10"} if devices > 1 else set())


def test_with_as_many_devices_as_the_artifact_had_a_run_is_the_artifacts():
    (run,) = [r for r in repeated(32) if isinstance(r, Repeated) and "33b-7b-puzzle" in str(r[0])]
    assert run.experiment.actor_model.layers == 64
    assert run.experiment.work.batch == 128
    assert str(run.experiment.choice.training) == "p32t1d1"
    assert str(run.experiment.choice.generation) == "p16t2d1"
    assert run.experiment.running.dtype == "float16"
    assert not run.experiment.running.switch_beside  # Table 3's time is the whole switch
    assert too_large(run, 80e9, 2e12) == ""
    assert "GiB a device" in too_large(run, 20e9, 2e12)


def test_a_scaled_run_gives_every_device_the_same_share():
    for devices in (2, 4, 8):
        (run,) = [r for r in repeated(devices) if isinstance(r, Repeated)
                  and r.experiment.name == f"gpus{devices}-7b-7b-puzzle"]  # fmt: skip
        assert run.experiment.actor_model.layers == 2 * devices
        assert run.experiment.work.batch == 16 * devices


def test_runs_are_started_by_torchrun_and_read_from_their_logs(tmp_path: Path):
    """The launch of the GPUs' runs on gloo ranks: figures 8, 9, 11 and 12 from their logs."""
    folder, some = Folder(tmp_path, "puzzle"), runs(2, "7b-7b-base", "7b-7b-puzzle")
    how = How(cases=tuple(Case(verb="repeat", experiment=run.experiment) for run in some))
    ask = Ask(folder=folder, suite="full", options={"backend": "gloo"})
    do_all(ARTIFACT, how, folder, ask, again=False)
    records = folder.records("full").read()
    assert [r.status for r in records] == ["ok", "ok"], [r.error for r in records]
    assert {r.origin for r in records} == {"measured"}
    bars = {(b.shown.figure, b.shown.bar): b for b in measured(records)}
    assert {figure for figure, _ in bars} == {"8", "9", "11", "12", "table 3"}
    log = read_log(folder.at("repeated", "puzzle", "runs", "gpus2-7b-7b-puzzle.given.log"))
    assert bars["8", "PUZZLE"].seconds == log.means()[-1]
    assert bars["table 3", "PUZZLE"].seconds == log.switch()
    assert bars["11", "PUZZLE"].published == pytest.approx(1.287, abs=1e-3)
    assert len(measured_table(records).rows) == 8
    drawn = measured_figures(folder, records)
    assert all((tmp_path / figure.svg).is_file() for figure in drawn)
    do_all(ARTIFACT, how, folder, ask, again=False)
    assert len(folder.records("full").read()) == 2  # finished ones are kept


@pytest.mark.slow
def test_the_baseline_is_started_too_and_prints_deepspeed_chats_lines(tmp_path: Path):
    (run,) = runs(2, "7b-7b-dschat")
    log = start(run.experiment, tmp_path, "gloo")
    assert log.deepspeed
    assert len(log.steps) == 3
    assert log.switch()


def ranks_of(folder: Path) -> list[str]:
    """Return the processes that work in a folder."""
    told = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in told.stdout.splitlines() if f"--out {folder}" in line]


@pytest.mark.slow
def test_an_interrupted_launch_leaves_no_rank_behind(tmp_path: Path):
    (run,) = runs(2, "7b-7b-base")
    running = msgspec.structs.replace(run.experiment.running, steps=5000)
    long = msgspec.structs.replace(run.experiment, running=running)

    seen: list[int] = []

    def interrupt() -> None:
        deadline = time.monotonic() + 240
        while len(ranks_of(tmp_path)) < 3 and time.monotonic() < deadline:
            time.sleep(0.5)
        seen.append(len(ranks_of(tmp_path)))
        time.sleep(3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        start(long, tmp_path, "gloo")
    assert seen[0] >= 3  # the launcher and two ranks
    assert ranks_of(tmp_path) == []


def test_a_launch_that_fails_says_why_in_one_line(tmp_path: Path):
    (run,) = runs(2, "7b-7b-base")
    spoilt = msgspec.structs.replace(run.experiment.running, prompts="none.jsonl")
    experiment = msgspec.structs.replace(run.experiment, running=spoilt)
    with pytest.raises(StartError, match="neither 'small' nor a file") as error:
        start(experiment, tmp_path, "gloo")
    assert "\n" not in str(error.value)


def test_without_gpus_one_line_says_what_is_left_out(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="puzzle"):
        assert repeatable(0) == []
    assert [r.message for r in caplog.records] == [
        "no CUDA device is visible: the artifact's own runs (figures 8 to 12 and table 3 measured"
        " on 1 to 32 GPUs) are left out; all else is done"
    ]


def test_our_line_of_deepspeed_chat_reads_back(tmp_path: Path):
    path = tmp_path / "x.log"
    path.write_text(latency_line(1.5, 10.0, 4.0, 2.25, batch=8) + "\n")
    log = read_log(path)
    assert (log.deepspeed, log.switch(), log.means()) == (True, 1.5, (10.0, 2.25, 4.0, 17.75))
