"""Files are whole or not there; plan files; traces; the cache of compiled kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common import trace
from common.files import digest, write, writing

ROOT = Path(__file__).parents[2]


def test_a_file_is_the_old_one_until_it_is_whole(tmp_path: Path):
    path = write(tmp_path / "new" / "a.json", "old")
    with pytest.raises(IsADirectoryError):
        _fail_in_the_middle(path)
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def _fail_in_the_middle(path: Path) -> None:
    with writing(path) as beside:
        beside.write_text("half")
        assert path.read_text() == "old"
        path.parent.read_bytes()


def test_whoever_reads_the_old_file_goes_on_reading_it(tmp_path: Path):
    path = write(tmp_path / "a", 100_000 * "old")
    with path.open() as reader:
        begun = reader.read(3)
        write(path, "new")
        assert begun + reader.read() == 100_000 * "old"
    assert path.read_text() == "new"


def test_a_written_file_has_the_rights_of_any_new_file(tmp_path: Path):
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    assert write(tmp_path / "a", b"x").stat().st_mode == usual


def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path: Path):
    path = write(tmp_path / "a", "old")
    code = (
        "import os, sys, signal; from pathlib import Path; from common.files import writing\n"
        "with writing(Path(sys.argv[1])) as beside:\n"
        "    beside.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, check=False)
    assert done.returncode < 0
    assert path.read_text() == "old"


def test_a_digest_follows_the_content(tmp_path: Path):
    path = write(tmp_path / "a", "abc")
    assert digest(path).startswith("ba7816bf")  # SHA-256's own example
    assert digest(write(path, "abd")) != digest(write(path, "abc"))


def test_a_trace_has_rows_spans_counters_and_moments_in_microseconds(tmp_path: Path):
    events = [
        trace.group("pipeline", 0),
        trace.row("stage 0", 0, 0),
        trace.span("F0", 0, 0, 0.5, 0.25, kind="forward", args={"micro-batch": 0}),
        trace.counter("memory", 0, 0.5, {"GiB": 2.0}),
        trace.instant("killed", 0, 0, 0.75),
    ]
    found = json.loads(trace.write_trace(tmp_path / "t.json", events).read_text())
    assert [event["ph"] for event in found["traceEvents"]] == ["M", "M", "X", "C", "i"]
    span = found["traceEvents"][2]
    assert (span["ts"], span["dur"], span["args"]) == (5e5, 2.5e5, {"micro-batch": 0})


KERNEL = """
import numba
from kernels_here.plan.inner import add

from common.kernels import compiled


@compiled
def twice(x):
    return add(x, x)


print(twice(3), twice.stats.cache_hits if hasattr(twice, "stats") else "", end="")
"""


def test_a_kernel_is_compiled_anew_when_what_it_calls_has_changed(tmp_path: Path):
    pytest.importorskip("numba")
    room = tmp_path / "kernels_here" / "plan"
    room.mkdir(parents=True)
    (room.parent / "__init__.py").touch()
    (room / "__init__.py").touch()
    (room / "outer.py").write_text(KERNEL)
    head = "from common.kernels import compiled\n\n\n@compiled\ndef add(a, b):\n"

    def result() -> str:
        done = subprocess.run(
            [sys.executable, "-c", "import kernels_here.plan.outer"],
            env=os.environ
            | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[0]

    (room / "inner.py").write_text(f"{head}    return a + b\n")
    assert result() == "6"
    stamp = (room / "outer.py").stat()
    (room / "inner.py").write_text(f"{head}    return a * b\n")
    os.utime(room / "outer.py", (stamp.st_atime, stamp.st_mtime))
    assert result() == "9"
