"""Who dies, fails or hangs is named and ends the others, under our launcher and torchrun."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError, RankError
from common.ranks import run_ranks
from tests.common import rank_tasks as tasks
from tests.common.rank_tasks import TIMEOUT_S

pytestmark = pytest.mark.timeout(400)  # a busy machine takes long to start ranks
ROOT = Path(__file__).parents[2]
NAMED_S = 5.0
"""A rank that hangs is named within the time-out and so many seconds."""
VAIN = r"rank [12] waited 4 s \(timeout_s\) in vain"
AT_SLEEP = rf"rank 0 hangs: {VAIN}, rank 0 is at line \d+ of rank_tasks.py"
CAUSES = [
    ("die", 2, "rank 1 was killed by SIGKILL (out of memory?)"),
    ("fail", 3, "rank 1 failed: ZeroDivisionError: of no use"),
    ("fail_while_others_sleep", 3, "rank 1 failed: ZeroDivisionError: of no use"),
    ("leave_silently", 3, "rank 1 ended early with status 3"),
]
HANGS = [
    ("sleep", 3, AT_SLEEP),
    ("sleep", 2, AT_SLEEP),
    ("loop", 3, AT_SLEEP),
    ("come_late", 3, AT_SLEEP),
    ("stop", 3, rf"rank 0 hangs: {VAIN}, rank 0 gives no answer"),
    ("stop", 2, rf"rank 0 hangs: {VAIN}, rank 0 gives no answer"),
]


def below(pid: int) -> list[int]:
    """Return every living process below one."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = list[int](), [pid]
    while todo:
        mine = children.get(todo.pop(), [])
        found += mine
        todo += mine
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def no_rank_is_left() -> bool:
    names = [Path(f"/proc/{pid}/cmdline").read_text() for pid in below(os.getpid()) if alive(pid)]
    return sum("forkserver" in name for name in names) <= 1  # ranks look like their server


def test_results_come_back_in_rank_order_and_reports_on_the_way() -> None:
    seen: list[Any] = []
    found = run_ranks(tasks.tell, 3, "x", on_report=lambda *values: seen.append(values))
    assert found == [(0, "x"), (1, "x"), (2, "x")]
    assert sorted(seen) == [(0, "hello"), (1, "hello"), (2, "hello")]
    assert no_rank_is_left()


@pytest.mark.parametrize(("task", "ranks", "cause"), CAUSES)
def test_who_dies_or_fails_is_named_and_ends_the_others(task: str, ranks: int, cause: str) -> None:
    with pytest.raises(RankError) as error:
        run_ranks(getattr(tasks, task), ranks, timeout_s=100.0)
    assert str(error.value) == f"{cause}; the other ranks were stopped"
    assert error.value.out_of_memory == (task == "die")
    assert no_rank_is_left()


@pytest.mark.parametrize(("task", "ranks", "message"), HANGS)
def test_who_hangs_is_named_in_time(task: str, ranks: int, message: str) -> None:
    waits: list[float] = []
    with pytest.raises(RankError, match=f"^{message}; the other ranks were stopped$"):
        run_ranks(
            getattr(tasks, task),
            ranks,
            timeout_s=TIMEOUT_S,
            on_report=lambda _, when: waits.append(when),
        )
    assert time.monotonic() - min(waits) < TIMEOUT_S + NAMED_S
    assert no_rank_is_left()


def test_a_users_mistake_found_by_a_rank_stays_one() -> None:
    with pytest.raises(InputError) as error:
        run_ranks(tasks.mistake, 2)
    assert type(error.value) is InputError
    assert str(error.value) == "the widget is broken; mend it"


def test_what_torch_refuses_is_told_as_it_is_and_no_rank_is_said_to_hang() -> None:
    with pytest.raises(RankError, match=r"^rank [01] failed: RuntimeError: Invalid scalar type"):
        run_ranks(tasks.disagree, 2, timeout_s=100.0)


def test_a_rank_that_does_not_leave_is_ended_when_all_results_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("common.ranks.LEAVE_S", 1.0)
    assert run_ranks(tasks.stay, 2) == [0, 1]
    assert no_rank_is_left()


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that is ended afterwards with all below it."""
    begun: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        for pid in filter(alive, [process.pid, *below(process.pid)]):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def under_torchrun(start: Start, task: str, ranks: int) -> subprocess.Popen[str]:
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks)
    return start(*words, ROOT / "tests/common/rank_tasks.py", task, ranks)


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("task", "ranks", "message"), HANGS)
def test_who_hangs_is_named_in_time_under_torchrun(
    start: Start, task: str, ranks: int, message: str
) -> None:
    waits, said = list[float](), list[str]()
    for line in lines_of(under_torchrun(start, task, ranks)):
        said.append(line)
        if line.startswith("waits"):
            waits.append(float(line.split()[1]))
        if line.startswith("error: "):
            assert re.match(f"error: {message}; torchrun says which rank was first", line)
            break
    else:
        pytest.fail("".join(said))
    assert time.monotonic() - min(waits) < TIMEOUT_S + NAMED_S


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "ranks", "message"),
    [
        ("die", 2, r"Signal 9 \(SIGKILL\) received by PID"),
        ("fail", 3, "error: rank 1 failed: ZeroDivisionError: of no use; torchrun says"),
        ("leave_silently", 3, r"exitcode *: 3 "),
        ("mistake", 2, "error: the widget is broken; mend it\n"),
    ],
)
def test_who_dies_or_fails_under_torchrun_is_named_and_nobody_is_said_to_hang(
    start: Start, task: str, ranks: int, message: str
) -> None:
    process = under_torchrun(start, task, ranks)
    said = "".join(lines_of(process))
    assert process.wait() != 0
    assert re.search(message, said), said
    assert "hangs" not in said
    assert 'rank_tasks.py", line' not in said  # no traceback of ours


@pytest.mark.slow
def test_torchrun_gives_every_rank_its_own_result(start: Start) -> None:
    process = under_torchrun(start, "say_both", 2)
    assert process.wait() == 0
    assert sorted(line for line in lines_of(process) if line.startswith("rank")) == [
        "rank 0 of 2\n",
        "rank 1 of 2\n",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("task", ["train", "sleep_all"])
def test_no_rank_outlives_the_process_that_started_it(
    start: Start, sent: signal.Signals, task: str
) -> None:
    process = start("-m", "tests.common.rank_tasks", task, 2)
    lines = lines_of(process)
    assert sorted([next(lines), next(lines)]) == ["0\n", "1\n"]
    ranks = below(process.pid)
    assert len(ranks) >= 3  # the fork server and two ranks
    process.send_signal(sent)
    assert process.wait(20) == (130 if sent == signal.SIGINT else -sent)
    end = time.monotonic() + 20
    while any(map(alive, ranks)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, ranks))
