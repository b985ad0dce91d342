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
    for end in range(start, len(content)):
        path = tmp_path / f"cut{end}.jsonl"
        path.write_bytes(content[:end])
        assert RecordFile(path).read() == [kept]
        aside = Path(f"{path}.damaged")
        assert aside.exists() == (end > start)
        assert not aside.exists() or aside.read_bytes() == content[start:end] + b"\n"
        assert path.read_bytes() == content[:start]
        RecordFile(path).append(lost)
        assert RecordFile(path).read() == [kept, lost]


def test_appending_first_mends_the_file_too(path: Path, make_record: Make):
    RecordFile(path).append(make_record(1))
    with path.open("ab") as file:
        file.write(b'{"schema":"record/1","arti')
    RecordFile(path).append(make_record(2))
    assert [r.metrics[0].value for r in RecordFile(path).read()] == [1, 2]


def test_damage_is_warned_of_once(path: Path, make_record: Make, caplog: pytest.LogCaptureFixture):
    RecordFile(path).append(make_record())
    with path.open("ab") as file:
        file.write(b"\x00\x00\xff")
    with caplog.at_level(logging.WARNING):
        RecordFile(path).read()
        RecordFile(path).read()
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 1
    assert "quick.jsonl.damaged" in warnings[0]


@pytest.mark.parametrize("line", [b'{"schema":"record/1","arti\n', b'{"a":[1,\n'])
def test_a_damaged_last_line_may_end_as_a_line(path: Path, make_record: Make, line: bytes):
    for damage_first in (True, False):
        RecordFile(path).append(make_record(1))
        with path.open("ab") as file:
            file.write(line)
        if damage_first:
            assert RecordFile(path).read()[-1].metrics[0].value == 1
        RecordFile(path).append(make_record(2))
    assert [r.metrics[0].value for r in RecordFile(path).read()] == [1, 2, 1, 2]
    assert Path(f"{path}.damaged").read_bytes() == 2 * line


def test_a_second_damage_keeps_the_first_aside(path: Path, make_record: Make):
    RecordFile(path).append(make_record())
    for rest in (b"{one", b"{two"):
        with path.open("ab") as file:
            file.write(rest)
        assert RecordFile(path).read() == [make_record()]
    assert Path(f"{path}.damaged").read_bytes() == b"{one\n{two\n"


@pytest.mark.parametrize("line", [b"{broken\n", b'{"schema": "record/2"}\n', b"3\n"])
def test_a_wrong_line_that_is_no_crash_is_an_error(path: Path, make_record: Make, line: bytes):
    RecordFile(path).append(make_record())
    with path.open("ab") as file:
        file.write(line)
    append_line(path, msgspec.json.encode(make_record()))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"quick\.jsonl: not lines of ours: "):
        RecordFile(path).read()
    assert path.read_bytes() == before


def test_a_record_of_a_later_schema_is_refused_even_as_the_last_line(path: Path, make_record: Make):
    append_line(path, msgspec.json.encode(make_record()).replace(b"record/1", b"record/9"))
    with pytest.raises(InputError, match="record/9"):
        RecordFile(path).read()


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
