"""Records survive a crash in mid-write and a full disk."""

import json
import logging
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from common.record import (
    Metric,
    Record,
    RecordFile,
    append_line,
    comparable,
    latest,
    read_lines,
    select,
)

Make = Callable[..., Record]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metis" / "quick.jsonl"


numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
metrics = st.builds(
    Metric,
    name=texts,
    value=numbers,
    unit=texts,
    samples=st.lists(st.floats(-1e9, 1e9), max_size=3).map(tuple),
)
records = st.builds(
    Record,
    artifact=texts,
    suite=texts,
    experiment=texts,
    case=st.dictionaries(texts, texts | numbers | st.booleans(), max_size=3),
    origin=st.sampled_from(["planned", "simulated", "measured", "paper"]),
    config=st.dictionaries(texts, texts | numbers | st.none() | st.booleans(), max_size=3),
    case_id=texts,
    metrics=st.lists(metrics, max_size=3).map(tuple),
    status=st.sampled_from(["ok", "failed", "skipped"]),
    error=st.none() | texts,
    files=st.dictionaries(texts, texts, max_size=2),
)


@given(st.lists(records, max_size=4))
def test_what_is_appended_is_read_back(written: list[Record]):
    with tempfile.TemporaryDirectory() as folder:
        file = RecordFile(Path(folder, "quick.jsonl"))
        for record in written:
            file.append(record)
        assert RecordFile(file.path).read() == written
        assert len(file.path.read_bytes().splitlines() if written else []) == len(written)


def test_no_file_is_no_records(path: Path):
    assert RecordFile(path).read() == []
    assert RecordFile(path).finished() == set()
    assert not path.exists()


def test_a_line_holds_the_schema_and_its_own_newline(path: Path, make_record: Make):
    RecordFile(path).append(make_record())
    text = path.read_text()
    assert text.endswith("}\n")
    assert json.loads(text)["schema"] == "record/1"


def test_numpy_values_are_kept_as_numbers(path: Path, make_record: Make):
    metric = Metric(name="t", value=np.float64(0.5), unit="s", samples=tuple(np.array([1.0, 2.0])))
    RecordFile(path).append(make_record(metrics=(metric,), case={"row": np.int64(3)}, config={}))
    read = RecordFile(path).read()[0]
    assert read.metrics == (Metric(name="t", value=0.5, unit="s", samples=(1.0, 2.0)),)
    assert read.case == {"row": 3}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_json_cannot_hold_is_refused(value: float):
    with pytest.raises(ValueError, match=r"search\.time is not finite"):
        Metric(name="search.time", value=value, unit="s")
    with pytest.raises(ValueError, match=r"search\.time is not finite"):
        Metric(name="search.time", value=1, unit="s", samples=(value,))


def test_a_cut_at_every_byte_costs_only_the_last_line(tmp_path: Path, make_record: Make):
    kept, lost = make_record(612), make_record(58078, case={"row": 2, "method": "métis"})
    whole = tmp_path / "whole.jsonl"
    RecordFile(whole).append(kept)
    start = whole.stat().st_size
    RecordFile(whole).append(lost)
    content = whole.read_bytes()
    for end in range(start, len(content) - 1, 7):
        path = tmp_path / f"cut{end}.jsonl"
        path.write_bytes(content[:end])
        assert RecordFile(path).read() == [kept]
        assert path.read_bytes() == content[:end]  # reading mends nothing
        RecordFile(path).append(lost)
        assert RecordFile(path).read() == [kept, lost]
        aside = Path(f"{path}.damaged")
        assert aside.exists() == (end > start)
        assert not aside.exists() or aside.read_bytes() == content[start:end] + b"\n"


def test_appending_first_mends_the_file_too(path: Path, make_record: Make):
    RecordFile(path).append(make_record(1))
    with path.open("ab") as file:
        file.write(b'{"schema":"record/1","arti')
    RecordFile(path).append(make_record(2))
    assert [r.metrics[0].value for r in RecordFile(path).read()] == [1, 2]


def test_a_cut_line_longer_than_what_is_looked_at_at_once_is_set_aside_whole(
    path: Path, make_record: Make
):
    RecordFile(path).append(make_record(1))
    cut = b'{"schema":"' + 300_000 * b"x"
    with path.open("ab") as file:
        file.write(cut)
    RecordFile(path).append(make_record(2))
    assert [r.metrics[0].value for r in RecordFile(path).read()] == [1, 2]
    assert Path(f"{path}.damaged").read_bytes() == cut + b"\n"


def test_reading_writes_nothing_and_says_what_it_left_out(
    path: Path, make_record: Make, caplog: pytest.LogCaptureFixture
):
    RecordFile(path).append(make_record())
    with path.open("ab") as file:
        file.write(b"\x00\x00\xff")
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert RecordFile(path).read() == [make_record()]
    (warning,) = [record.message for record in caplog.records]
    assert "quick.jsonl: 1 lines are not ours and left out" in warning
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["quick.jsonl"]


def test_two_damages_are_set_aside_one_after_the_other(path: Path, make_record: Make):
    RecordFile(path).append(make_record(1))
    for number, rest in enumerate((b"{one", b"{two"), 2):
        with path.open("ab") as file:
            file.write(rest)
        RecordFile(path).append(make_record(number))
    assert [r.metrics[0].value for r in RecordFile(path).read()] == [1, 2, 3]
    assert Path(f"{path}.damaged").read_bytes() == b"{one\n{two\n"


LATER = msgspec.json.encode({"schema": "record/2", "artifact": "metis"})


@pytest.mark.parametrize("line", [b"{broken", LATER, b"3", b'{"schema":"record/1","new":1}'])
def test_wrong_lines_are_left_out_and_counted_in_one_warning(
    path: Path, make_record: Make, caplog: pytest.LogCaptureFixture, line: bytes
):
    for value in (1, 2):
        RecordFile(path).append(make_record(value))
        append_line(path, line)
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert [r.metrics[0].value for r in RecordFile(path).read()] == [1, 2]
    (warning,) = [record.message for record in caplog.records]
    assert "2 lines are not ours and left out (line 2: " in warning
    assert path.read_bytes() == before


def test_finished_are_the_cases_whose_last_record_is_ok(path: Path, make_record: Make):
    file = RecordFile(path)
    done, broken, again = (make_record(case={"row": row}) for row in (1, 2, 3))
    file.append(done)
    file.append(msgspec.structs.replace(broken, status="failed", error="OSError: no"))
    file.append(again)
    file.append(msgspec.structs.replace(again, status="failed", error="OSError: no"))
    assert file.finished() == {("table1", done.case_id)}
    file.append(again)
    assert file.finished() == {("table1", done.case_id), ("table1", again.case_id)}


def test_latest_keeps_the_last_record_of_each_case_and_origin(make_record: Make):
    old, new = make_record(1), make_record(2)
    other, measured = make_record(3, case={"row": 2}), make_record(4, origin="measured")
    assert latest([old, other, measured, new]) == [new, other, measured]


def test_select_goes_by_axes_and_fields(make_record: Make):
    one, two = make_record(1), make_record(2, case={"row": 2, "method": "metis"})
    failed = make_record(3, status="failed")
    assert select([one, two, failed], row=2) == [two]
    assert select([one, two, failed], method="metis", status="ok") == [one, two]
    assert select([one, two], experiment="another") == []
    assert select([one, two], unknown=1) == []


def test_one_machine_and_origin_are_comparable(make_record: Make):
    same = [make_record(provenance=f"cafe0000-{name}") for name in ("1111", "2222")]
    assert comparable(same) == same
    assert comparable([]) == []


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("origin", "measured", "measured on cafe0000.*planned on cafe0000"),
        ("provenance", "beef0000-1", "planned on beef0000.*planned on cafe0000"),
    ],
)
def test_unlike_records_are_refused_in_one_sentence(
    make_record: Make, field: str, value: str, named: str
):
    unlike = [make_record(), make_record(**{field: value})]
    with pytest.raises(InputError, match=named) as error:
        comparable(unlike)
    assert "\n" not in str(error.value)


WRITER = """
    import sys
    from pathlib import Path
    import msgspec
    from common.record import Record, RecordFile
    file, name = RecordFile(Path(sys.argv[1])), sys.argv[2]
    template = msgspec.json.decode(sys.stdin.buffer.read(), type=Record)
    for i in range(60):
        config = {"writer": name, "i": i, "filling": "x" * 20000}
        file.append(msgspec.structs.replace(template, case_id=f"{name}{i}", config=config))
"""


def write_from_outside(path: Path, name: str, record: Record, **limits: object):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), name]
    line = msgspec.json.encode(record)
    return subprocess.run(command, input=line, capture_output=True, check=False, **limits)  # type: ignore[call-overload]


def test_a_record_that_does_not_fit_on_the_disk_costs_no_other(path: Path, make_record: Make):
    resource = pytest.importorskip("resource")

    def fill_early() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = write_from_outside(path, "a", make_record(), preexec_fn=fill_early)
    assert done.returncode != 0
    assert b"OSError" in done.stderr
    assert len(RecordFile(path).read()) == 2
    RecordFile(path).append(make_record())  # the disk has room again
    assert len(RecordFile(path).read()) == 3
    assert path.read_bytes().endswith(b"}\n")


def test_a_killed_writer_leaves_whole_lines(path: Path, make_record: Make):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), "a"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(make_record()))
        process.stdin.close()
        while not path.exists() or b"\n" not in path.read_bytes():  # a first line may be cut
            assert process.poll() is None
        process.kill()
    assert RecordFile(path).read()


READER = """
    import sys
    from pathlib import Path
    from common.record import RecordFile
    while not Path(sys.argv[2]).exists():
        RecordFile(Path(sys.argv[1])).read()
"""


@pytest.mark.parametrize("killed", [False, True], ids=["all-live", "one-killed"])
def test_four_writers_and_a_reader_lose_nothing(path: Path, make_record: Make, killed: bool):
    """Each line of 200 kB needs several writes of the system; one writer may be killed in one."""
    script = textwrap.dedent(WRITER.replace("20000", "200000"))
    line, stop = msgspec.json.encode(make_record()), path.parent.parent / "stop"
    reader = subprocess.Popen([sys.executable, "-c", textwrap.dedent(READER), path, stop])
    writers = []
    for name in "abcd":
        command = [sys.executable, "-c", script, str(path), name]
        writers.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        assert writers[-1].stdin is not None
        writers[-1].stdin.write(line)
        writers[-1].stdin.close()
    if killed:
        while not path.exists() or path.stat().st_size < 3_000_000:
            assert writers[0].poll() is None
        writers[0].kill()
    codes = [writer.wait() for writer in writers]
    stop.touch()
    assert reader.wait() == 0
    assert codes[1:] == [0, 0, 0]
    found = [record.case_id for record in RecordFile(path).read()]
    whole = {f"{name}{i}" for name in "abcd"[killed:] for i in range(60)}
    assert whole <= set(found)
    assert len(found) == len(set(found))
    if killed:
        mine = [name for name in found if name.startswith("a")]
        assert mine == [f"a{i}" for i in range(len(mine))]


def test_an_append_reads_a_bounded_part_of_the_file(path: Path, make_record: Make):
    """Counted by the system, not timed: bytes read do not grow with what is there."""

    def read_bytes() -> int:
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(counts["rchar"])

    if not Path("/proc/self/io").exists():
        pytest.skip("needs Linux's count of bytes read")
    record, costs = make_record(), []
    for filling in (0, 20_000):
        for _ in range(filling // 1000):
            with path.open("ab") as file:
                file.write(1000 * (msgspec.json.encode(record) + b"\n"))
        RecordFile(path).append(record)
        before = read_bytes()
        RecordFile(path).append(record)
        costs.append(read_bytes() - before)
    assert len(RecordFile(path).read()) == 20_004
    assert abs(costs[1] - costs[0]) < 16  # the count itself has more digits by then


def test_read_lines_decodes_any_kind(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    append_line(path, b'{"a":1}')
    append_line(path, b'{"b":2}')
    assert read_lines(path, dict[str, int]) == [{"a": 1}, {"b": 2}]


def test_a_folder_that_cannot_be_made_is_an_os_error_with_its_path(
    tmp_path: Path, make_record: Make
):
    (tmp_path / "metis").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="metis") as error:
        RecordFile(tmp_path / "metis" / "quick.jsonl").append(make_record())
    assert str(tmp_path) in str(error.value.filename)
