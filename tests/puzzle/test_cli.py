"""The verbs as a user types them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from puzzle.paper.logs import read_log

ROOT = Path(__file__).parents[2]
PATIENCE_S = 400.0
"""A call takes seconds; a machine with more to do may need minutes."""

pytestmark = pytest.mark.timeout(900)


def puzzle(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "puzzle", *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_inputs_are_a_start_for_a_plan_of_ones_own(tmp_path: Path):
    done = puzzle("inputs", "orion-13b-7b", cwd=tmp_path)
    (tmp_path / "my.toml").write_text(done.stdout)
    planned = puzzle("plan", "my.toml", "--set", "devices=8", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "best plans, predicted" in planned.stdout
    assert (tmp_path / "results/puzzle/plans/orion-13b-7b.auto.json").is_file()
    records = (tmp_path / "results/puzzle/own.jsonl").read_text().splitlines()
    assert json.loads(records[0])["origin"] == "planned"


def test_simulate_writes_a_trace(tmp_path: Path):
    done = puzzle("plan", "orion-7b-7b", "--method", "released", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = tmp_path / "results/puzzle/plans/orion-7b-7b.released.json"
    done = puzzle("simulate", "orion-7b-7b", "--plan", str(plan), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trace = json.loads((tmp_path / "results/puzzle/traces/orion-7b-7b.released.json").read_text())
    assert len(trace["traceEvents"]) > 16 * 4 * 64


def test_a_run_writes_a_log_that_our_parser_reads(tmp_path: Path):
    done = puzzle(
        "run", "tiny-cpu-1", "--set", "running.steps=2", "--set", "work.answer=4", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "2 steps on 1 gloo ranks" in done.stdout
    log = read_log(tmp_path / "results/puzzle/runs/tiny-cpu-1.given.log")
    assert len(log.steps) == 2
    assert log.world == (1, 1, 1, 1)
    assert log.options["use_shadow"] == "False"


def test_a_run_says_its_steps_and_goes_on_in_its_log(tmp_path: Path):
    four = ("--set", "running.steps=4", "--set", "running.checkpoint_every=2")
    short = ("--set", "work.answer=4", "--set", "running.checkpoint=kept")
    done = puzzle("run", "tiny-cpu-1", *four, *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [f"step {n}/4: reward" in done.stderr for n in (1, 2, 3, 4)] == [True] * 4
    path = tmp_path / "results/puzzle/runs/tiny-cpu-1.given.log"
    whole = read_log(path)
    last = tmp_path / "kept/step-00000004"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    done = puzzle("run", "tiny-cpu-1", *four, *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = read_log(path)
    assert [step.fields for step in again.steps] == [step.fields for step in whole.steps]
    assert again.steps[:2] == whole.steps[:2]
    done = puzzle("run", "tiny-cpu-1", *four, *short, cwd=tmp_path)
    assert "nothing to do: a checkpoint of step 4 is there" in done.stdout
    assert read_log(path).steps == again.steps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "orion-7b-7b", "--method", "given", "--set", "work.batch=10"), "micro_batch"),
        (("plan", "orion-7b-7b", "--method", "bulk"), "--method is 'bulk', expected one of auto"),
        (("run", "tiny-cpu-4", "--world-size", "3"), "3 ranks were given"),
        (("run", "tiny-cpu-1", "--set", "work.prompt=8"), "more than work.prompt (8)"),
        (("run", "tiny-cpu-1", "--set", "actor.vocabulary=100"), "the tokenizer has 259 tokens"),
        (("run", "orion-7b-7b", "--backend", "mpi"), "expected gloo or nccl"),
        (("quick", "--set", "devices=2"), "quick is a fixed suite"),
        (
            (
                "run",
                "orion-33b-7b",
                "--set",
                "devices=8",
                "--set",
                "choice.training.pipeline=8",
                "--set",
                "choice.generation.pipeline=8",
                "--set",
                "choice.generation.tensor=1",
                "--set",
                "method=given",
                "--set",
                "work.decode_micro_batch=8",
                "--set",
                "choice.mapping=overlap",
                "--backend",
                "gloo",
            ),
            "need 692 GiB",
        ),
        (("run", "tiny-cpu-1", "--set", "running.save_to=/dev/null/x"), "cannot be made: Not a"),
        (("run", "tiny-cpu-1", "--set", "running.actor_weights=x"), "no such folder of safetensor"),
        (("run", "tiny-cpu-1", "--seed", "-1"), "--seed is -1, expected 0 or more"),
        (("report", "large"), "no suite 'large'"),
        (("inputs", "orion-7b-7b", "--set", "actor=8b"), "actor is '8b', expected one of 7b"),
    ],
)
def test_a_users_mistake_is_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path):
    done = puzzle(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert done.stderr.strip().count("\n") == 0
    assert message in done.stderr


def test_a_plan_brings_files_that_start_it(tmp_path: Path):
    done = puzzle("plan", "orion-33b-7b", "--method", "given", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results/puzzle/plans"
    slurm = (folder / "orion-33b-7b.given.slurm.sh").read_text()
    assert "--nodes=4\n" in slurm
    assert '--nproc-per-node="${NPROC:-8}"' in slurm
    assert "NPROC=" not in slurm.replace("${NPROC", "")  # every node is full
    for script in folder.glob("*.sh"):
        assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    again = puzzle(
        "plan", str(folder / "orion-33b-7b.given.toml"), "--method", "given", cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_the_slurm_job_starts_all_ranks_of_nodes_that_are_not_full(tmp_path: Path):
    """Three ranks on nodes of two: Slurm's commands stand in for two nodes on this machine."""
    done = puzzle("inputs", "tiny-cpu-1", "--set", "running.steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "my.toml").write_text(done.stdout)
    sizes = "devices=3", "work.batch=12", "cluster={devices=3,devices_per_node=2}"
    three = [f"choice.{stage}.data=3" for stage in ("training", "generation")]
    changes = [word for change in (*sizes, *three) for word in ("--set", change)]
    done = puzzle("plan", "my.toml", "--method", "given", *changes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plans = tmp_path / "results/puzzle/plans"
    script = plans / "tiny-cpu-1.given.slurm.sh"
    script.write_text(script.read_text().replace("--backend nccl", "--backend gloo"))
    assert "--nodes=2\n" in script.read_text()
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scontrol").write_text("#!/bin/sh\necho 127.0.0.1\necho 127.0.0.1\n")
    (commands / "srun").write_text(
        '#!/bin/sh\nSLURM_NODEID=1 "$@" & other=$!\nSLURM_NODEID=0 "$@"\nwait $other\n'
    )
    (commands / "torchrun").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n'
    )
    for command in commands.iterdir():
        command.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    there = {
        **os.environ, "PYTHONPATH": str(ROOT), "PORT": port, "SLURM_JOB_NODELIST": "two",
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PUZZLE_OUT": str(tmp_path / "other"),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(script)], cwd=plans, env=there, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "other/puzzle/runs/tiny-cpu-1.given.json").read_text())
    assert (run["world_size"], len(run["steps"])) == (3, 1)


@pytest.mark.slow
def test_torchrun_starts_the_same_run(tmp_path: Path):
    plain = puzzle("run", "learn-cpu-2", "--set", "running.steps=2", cwd=tmp_path)
    assert plain.returncode == 0, plain.stderr
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "puzzle", "run", "learn-cpu-2", "--set", "running.steps=2", "--out", "other",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    runs = [
        json.loads((tmp_path / out / "puzzle/runs/learn-cpu-2.given.json").read_text())
        for out in ("results", "other")
    ]
    assert runs[0]["digest"] == runs[1]["digest"]
