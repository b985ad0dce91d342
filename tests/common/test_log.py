"""Logging by rank, progress by terminal or lines, and one line for a user's mistake."""

import contextlib
import errno
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from common.errors import InputError
from common.log import guard, progress, setup


def lines_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def in_terminal(code: str) -> str:
    """Return what the code shows on a terminal of its own."""
    parent, child = pty.openpty()
    command = [sys.executable, "-c", textwrap.dedent(code)]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stderr=child, stdout=child, stdin=child, env=env) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:  # EIO: the terminal's other end is closed
                break
            shown += part
    os.close(parent)
    assert process.returncode == 0, shown
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", shown.decode())  # without colours


def test_rank_0_logs_to_console_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    setup("metis", tmp_path).info("found %d plans", 3)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "INFO found 3 plans\n"
    (line,) = lines_of(tmp_path / "metis" / "log.jsonl")
    assert line["message"] == "found 3 plans"
    assert line["level"] == "INFO"
    assert line["logger"] == "metis"
    assert line["time"].endswith("Z")


def test_other_ranks_log_to_their_own_file_and_only_warn_on_the_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RANK", "3")
    log = setup("metis", tmp_path)
    log.info("quiet")
    log.warning("loud")
    assert capsys.readouterr().err == "WARNING [rank 3] loud\n"
    messages = [line["message"] for line in lines_of(tmp_path / "metis" / "log-rank3.jsonl")]
    assert messages == ["quiet", "loud"]
    assert not (tmp_path / "metis" / "log.jsonl").exists()


def test_verbose_shows_details(capsys: pytest.CaptureFixture[str]):
    setup("metis", verbose=False).debug("detail")
    assert capsys.readouterr().err == ""
    setup("metis", verbose=True).debug("detail")
    assert "detail" in capsys.readouterr().err


def test_modules_of_the_artifact_and_of_common_speak_but_libraries_only_warn(
    capsys: pytest.CaptureFixture[str],
):
    setup("metis")
    logging.getLogger("metis.plan.search").info("ours")
    logging.getLogger("common.record").info("shared")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble")
    assert capsys.readouterr().err == "INFO ours\nINFO shared\nWARNING trouble\n"


def test_setting_up_twice_says_everything_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    setup("metis", tmp_path)
    setup("metis", tmp_path).info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert len(lines_of(tmp_path / "metis" / "log.jsonl")) == 1


def test_without_a_folder_no_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    setup("metis").info("nothing kept")
    assert list(tmp_path.iterdir()) == []


def test_an_exception_is_kept_with_its_traceback(tmp_path: Path):
    log = setup("metis", tmp_path)
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        log.exception("went wrong")
    (line,) = lines_of(tmp_path / "metis" / "log.jsonl")
    assert "ZeroDivisionError" in line["message"]


def test_a_log_line_of_markup_and_newlines_stays_one_line_of_json(tmp_path: Path):
    setup("metis", tmp_path).info('[bold]"a"\nb[/]')
    assert [x["message"] for x in lines_of(tmp_path / "metis" / "log.jsonl")] == ['[bold]"a"\nb[/]']


def test_progress_is_about_ten_lines_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    setup("metis", tmp_path)
    with progress(1000, "search") as advance:
        for _ in range(1000):
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("INFO search: 100 of 1000, ")
    assert lines[-1].startswith("INFO search: 1000 of 1000, ")
    assert len(lines_of(tmp_path / "metis" / "log.jsonl")) == 10


def test_progress_of_few_and_uneven_units_tells_each(capsys: pytest.CaptureFixture[str]):
    setup("metis")
    with progress(7, "runs") as advance:
        advance(3)
        advance(0)
        advance(4)
    said = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == ["INFO runs: 3 of 7", "INFO runs: 7 of 7"]


@pytest.mark.parametrize(("total", "rank"), [(0, "0"), (-1, "0"), (5, "1")])
def test_progress_says_nothing_when_nothing_is_left_or_another_rank_speaks(
    total: int, rank: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RANK", rank)
    setup("metis")
    with progress(total, "search") as advance:
        advance(5)
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_bar_on_a_terminal_and_lines_pass_above_it():
    shown = in_terminal("""
        from common.log import progress, setup
        log = setup("metis")
        with progress(4, "search") as advance:
            for i in range(4):
                log.info("case %d", i)
                advance()
    """)
    assert "━" in shown
    assert "100%" in shown
    assert "case 3" in shown
    assert "search: " not in shown


def test_nothing_left_shows_no_bar_on_a_terminal_either():
    shown = in_terminal("""
        from common.log import progress
        with progress(0, "search"):
            pass
    """)
    assert shown == ""


def caught(error: BaseException, capsys: pytest.CaptureFixture[str], verbose: bool = False):
    with pytest.raises(SystemExit) as exit, guard(verbose):
        raise error
    said = capsys.readouterr()
    assert said.out == ""
    return exit.value.code, said.err


def test_a_users_mistake_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]):
    assert caught(InputError("gpus is 0,\ngive 1"), capsys) == (2, "error: gpus is 0, give 1\n")


def test_ctrl_c_is_one_line_and_status_130(capsys: pytest.CaptureFixture[str]):
    status, said = caught(KeyboardInterrupt(), capsys)
    assert (status, said) == (130, "interrupted: what was finished is kept\n")


def test_a_bad_path_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit, guard():
        (tmp_path / "none.json").read_text()
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said == f"error: {tmp_path / 'none.json'}: No such file or directory\n"


def test_a_full_disk_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught(full, capsys) == (2, "error: results: No space left on device\n")


def test_verbose_shows_the_traceback_before_the_line(capsys: pytest.CaptureFixture[str]):
    status, said = caught(InputError("gpus is 0"), capsys, verbose=True)
    assert status == 2
    assert said.startswith("Traceback")
    assert said.endswith("error: gpus is 0\n")


@pytest.mark.parametrize("error", [ValueError("ours"), OSError("socket"), BrokenPipeError(32, "x")])
def test_a_defect_keeps_its_own_exception(error: Exception):
    with pytest.raises(type(error)), guard():
        raise error


def test_an_exit_and_a_clean_end_pass(capsys: pytest.CaptureFixture[str]):
    with guard():
        pass
    with pytest.raises(SystemExit, match="1"), guard():
        raise SystemExit(1)
    assert capsys.readouterr() == ("", "")


def test_what_a_lost_ctrl_c_has_broken_is_an_interruption(capsys: pytest.CaptureFixture[str]):
    def lose() -> None:
        """As in a finaliser or a callback, where Python drops what the handler raises."""
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    def lose_and_fail() -> None:
        lose()
        raise RuntimeError("no compiled object yet")

    with pytest.raises(SystemExit) as exit, guard():
        lose_and_fail()
    assert exit.value.code == 130
    assert capsys.readouterr().err == "interrupted: what was finished is kept\n"
