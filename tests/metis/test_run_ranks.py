"""Ranks live and die together: failures, kills, Ctrl-C, a lost starter, torchrun."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from common.errors import InputError
from metis.inputs.model import Model
from metis.plan.plans import write
from metis.run import RankError, RunResult, Training, launch
from metis.run.ranks import run_ranks
from tests.metis.toy_plans import make_plan

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from metis.plan.plans import read
from metis.run import Training, launch

if __name__ == "__main__":
    steps = int(sys.argv[2])
    launch(
        read(Path(sys.argv[1])),
        steps=steps,
        out=Path(sys.argv[3]),
        training=Training(dtype="float64", timeout_s=60),
        on_step=lambda step, loss: print(step, loss, flush=True),
    )
"""

SLEEPERS = """
import time
from metis.run.ranks import run_ranks

def sleep(rank, report):
    report(rank)
    time.sleep(3600)

if __name__ == "__main__":
    run_ranks(sleep, 2, on_report=lambda rank: print(rank, flush=True))
"""


def replicas(ranks):
    """A plan of one stage of `ranks` replicas."""
    model = Model(
        layers=3, hidden_size=8, sequence_length=4, vocabulary=7, heads=2, global_batch=ranks
    )
    return make_plan([(ranks, 1, 3, (1,) * ranks)], batches=1, model=model)


def rank_processes():
    return [child for child in multiprocessing.active_children() if child.name.startswith("rank-")]


def wait_until(condition, seconds=30.0):
    """Return what the condition gives once it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def children(pid):
    """Every living process below one, with the fork server and its ranks."""
    below, found = {}, []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        if fields[0] != "Z":
            below.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    todo = [pid]
    while todo:
        mine = below.get(todo.pop(), [])
        found += mine
        todo += mine
    return found


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def fail_on_one(rank, report, kind):
    """Rank 1 fails; the others wait for it."""
    import torch
    import torch.distributed as dist

    if rank == 1:
        raise kind("the widget\nis broken")
    dist.all_reduce(torch.zeros(1))


def leave_silently(rank, report):
    os._exit(3) if rank == 0 else time.sleep(60)


def test_results_come_back_in_rank_order_and_reports_on_the_way():
    seen = []
    assert run_ranks(tell_rank, 2, "x", timeout_s=60, on_report=lambda *v: seen.append(v)) == [
        (0, "x"),
        (1, "x"),
    ]
    assert sorted(seen) == [(0, "hello"), (1, "hello")]
    assert not rank_processes()


def tell_rank(rank, report, value):
    report(rank, "hello")
    return rank, value


def test_a_failing_rank_is_named_and_ends_the_others():
    start = time.monotonic()
    with pytest.raises(RankError) as error:
        run_ranks(fail_on_one, 3, ArithmeticError, timeout_s=60)
    assert time.monotonic() - start < 20
    assert str(error.value) == (
        "rank 1 failed: ArithmeticError: the widget is broken; the other ranks were stopped"
    )
    assert not rank_processes()


def test_a_users_mistake_found_by_a_rank_stays_one():
    with pytest.raises(InputError) as error:
        run_ranks(fail_on_one, 2, InputError, timeout_s=60)
    assert str(error.value) == "the widget is broken"


def test_a_rank_that_leaves_without_a_word_is_named():
    with pytest.raises(RankError, match="rank 0 ended early with status 3; the other ranks"):
        run_ranks(leave_silently, 2, timeout_s=60)
    assert not rank_processes()


def test_a_killed_rank_ends_the_run_with_one_line():
    steps, caught = [], []

    def run():
        try:
            launch(
                replicas(3),
                steps=1_000_000,
                training=Training(timeout_s=60),
                on_step=lambda step, loss: steps.append(step),
            )
        except RankError as error:
            caught.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: len(steps) > 2)
    victims = {process.name: process.pid for process in rank_processes()}
    assert set(victims) == {"rank-0", "rank-1", "rank-2"}
    os.kill(victims["rank-1"], signal.SIGKILL)
    thread.join(15)
    assert not thread.is_alive()
    assert caught == ["rank 1 was killed by SIGKILL (out of memory?); the other ranks were stopped"]
    assert not any(alive(pid) for pid in victims.values())


@pytest.fixture
def start(tmp_path):
    """Start a script as a process of its own; return it and all below it, at work."""
    begun = []

    def begin(script, *arguments):
        (tmp_path / "script.py").write_text(script)
        with (tmp_path / "errors").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, tmp_path / "script.py", *arguments],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        begun.append(process.pid)
        process.stdout.readline()
        process.stdout.readline()
        begun.extend(children(process.pid))
        return process, begun[1:]

    yield begin
    for pid in filter(alive, begun):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("busy", [True, False], ids=["training", "asleep"])
def test_no_rank_outlives_the_process_that_started_it(start, tmp_path, sent, busy):
    write(replicas(2), tmp_path / "plan.json")
    training = (SCRIPT, tmp_path / "plan.json", "1000000", tmp_path)
    process, below = start(*training) if busy else start(SLEEPERS)
    assert len(below) >= 3  # the fork server and two ranks
    process.send_signal(sent)
    assert process.wait(20) != 0
    process.stdout.close()
    errors = (tmp_path / "errors").read_text()
    assert ("KeyboardInterrupt" in errors) == (sent == signal.SIGINT)
    wait_until(lambda: not any(alive(pid) for pid in below), 10)


@pytest.mark.slow
def test_torchrun_on_two_unequal_nodes_equals_ranks_started_here(tmp_path):
    plan = replicas(3)
    write(plan, tmp_path / "plan.json")
    (tmp_path / "script.py").write_text(SCRIPT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    agents = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nnodes=2",
                f"--node-rank={node}",
                f"--nproc-per-node={ranks}",
                "--rdzv-backend=static",
                f"--rdzv-endpoint=127.0.0.1:{port}",
                str(tmp_path / "script.py"),
                str(tmp_path / "plan.json"),
                "2",
                str(tmp_path / f"node{node}"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for node, ranks in enumerate((1, 2))
    ]
    assert [agent.wait(60) for agent in agents] == [0, 0]
    result = msgspec.json.decode((tmp_path / "node0/run.json").read_bytes(), type=RunResult)
    here = launch(plan, steps=2, training=Training(dtype="float64", timeout_s=60))
    assert result.losses == pytest.approx(here.losses, rel=1e-12)
    assert not (tmp_path / "node1").exists()
