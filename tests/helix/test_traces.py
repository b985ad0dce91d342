"""Request traces of one's own: every public form is read, and nothing vanishes without a word."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import helix
from common.errors import InputError
from helix.inputs.cluster_source import ClusterSource, MachineGroup
from helix.inputs.experiment import ROOFLINE, Experiment, ProfileSource
from helix.inputs.model_source import ModelSource
from helix.inputs.requests import Arrival
from helix.inputs.search import SearchSettings
from helix.inputs.trace_forms import FORMS, seconds_of
from helix.inputs.traces import (
    EARLY,
    LATE,
    NO_BATCH,
    NO_INPUT,
    NO_OUTPUT,
    NO_ROOM,
    TOO_LONG,
    Limits,
    Trace,
    read_trace,
)
from helix.inputs.workload import WorkloadSettings

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
BURST = "Model,Request tokens,Response tokens,Total tokens,Log Type"
MOONCAKE = '{"timestamp": %d, "input_length": %d, "output_length": %d, "hash_ids": [0]}\n'
SERVING = '{"input_toks": %d, "output_toks": %d, "arrival_time_ns": %d}\n'
FILES = {
    "own": "arrival,input,output\n12.5,100,20\n10,2000,5000\n11,3,9\n",
    "own, 500.0 and a byte order mark": "\ufeff arrival , input,output\n10,2000.0,5000\n"
    "11,3,9\n\n12.5,100,20\n",
    "Azure 2023": f"{AZURE}\r\n2023-11-16 18:15:46.0000000,2000,5000\r\n"
    "2023-11-16 18:15:47.0000000,3,9\r\n2023-11-16 18:15:48.5000000,100,20",
    "Azure 2024": f"{AZURE}\n2024-05-12 00:00:00+00:00,2000,5000\n"
    "2024-05-12 02:00:01.000000+02:00,3,9\n2024-05-12T00:00:02.5Z,100,20\n",
    "Azure 2025": "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
    "2024-10-15 00:00:00.000000,2,2000,5000\n2024-10-15 00:00:01.000000,1,3,9\n"
    "2024-10-15 00:00:02.500000,0,100,20\n",
    "BurstGPT 1": f"Timestamp,{BURST}\n5,GPT-4,2000,5000,7000,API log\n"
    "6,ChatGPT,3,9,12,API log\n7.5,ChatGPT,100,20,120,API log\n",
    "BurstGPT 3": f"Timestamp,Session ID,Elapsed time,{BURST}\n5,,1,GPT-4,2000,5000,7000,A\n"
    "6,7,1,C,3,9,12,B\n7.5,,1,C,100,20,120,B\n",
    "Mooncake": MOONCAKE % (3000, 2000, 5000) + MOONCAKE % (4000, 3, 9)
    + MOONCAKE % (5500, 100, 20),
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,2000,5000\n1.0,3,9\n2.5,100,20",
    "splitwise-sim": "request_id,request_type,application_id,arrival_timestamp,batch_size,"
    "prompt_size,token_size\n0,2,0,1,1,2000,5000\n1,2,0,2,1,3,9\n2,2,0,3.5,1,100,20\n",
    "LLMServingSim": SERVING % (2000, 5000, 10**9) + SERVING % (3, 9, 2 * 10**9)
    + SERVING % (100, 20, 35 * 10**8),
    "epoch seconds": "arrival,input,output\n1700000000,2000,5000\n1700000001,3,9\n"
    "1700000002.5,100,20\n",
    "epoch ms": "arrival,input,output\n1700000000000,2000,5000\n1700000001000,3,9\n"
    "1700000002500,100,20\n",
}  # fmt: skip
REQUESTS = (Arrival(0.0, 2000, 5000), Arrival(1.0, 3, 9), Arrival(2.5, 100, 20))


@pytest.mark.parametrize("name", FILES)
def test_every_form_says_the_same_three_requests(name: str, tmp_path: Path):
    path = tmp_path / "trace"
    path.write_text(FILES[name])
    trace = read_trace(path)
    assert name.startswith(trace.form) or trace.form == "own"
    assert (trace.rows, trace.dropped) == (3, {})
    for one, right in zip(trace.arrivals, REQUESTS, strict=True):
        assert (one.input, one.output) == (right.input, right.output)
        assert one.time_s == pytest.approx(right.time_s, abs=1e-6)


def test_what_is_not_simulated_and_what_was_recognised_is_said(tmp_path: Path):
    said = dict[str, str]()
    for name, text in FILES.items():
        path = tmp_path / name
        path.write_text(text)
        said[name] = " ".join(read_trace(path).notes)
    assert "images are not counted" in said["Azure 2025"]
    assert "no prefix cache is simulated" in said["Mooncake"]
    assert "of the epoch" in said["epoch seconds"]
    assert "of the epoch" in said["epoch ms"]
    assert said["own"] == said["vidur"] == said["BurstGPT 1"] == ""


def test_times_keep_all_their_digits_and_their_offset():
    azure = FORMS[1]
    first = seconds_of("2023-11-16 18:15:46.6805901", azure)
    assert seconds_of("2023-11-16 18:15:46.6805906", azure) - first == pytest.approx(5e-7, abs=3e-7)
    for same in ("2024-05-12 02:00:00+02:00", "2024-05-12T00:00:00Z", "2024-05-11 19:30-04:30"):
        assert seconds_of(same, azure) == seconds_of("2024-05-12 00:00:00", azure)


def test_requests_without_an_answer_are_skipped_and_counted(tmp_path: Path):
    path = tmp_path / "own.csv"
    path.write_text("arrival,input,output\n0,500,100\n1,500,0\n2,0,0\n3,500,7\n")
    trace = read_trace(path)
    assert len(trace.arrivals) == 2
    assert trace.dropped == {NO_OUTPUT: 1, NO_INPUT: 1}


@given(
    rows=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 9000), st.integers(1, 900))),
    limits=st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000)),
    start=st.integers(0, 50), window=st.integers(1, 80), scale=st.floats(0.1, 10),
)  # fmt: skip
def test_read_is_kept_and_dropped(
    rows: list[tuple[int, int, int]], limits: tuple[int, int, int], start: int, window: int,
    scale: float,
):  # fmt: skip
    arrivals = tuple(Arrival(float(t), i, o) for t, i, o in sorted(rows))
    trace = Trace("own", len(rows), arrivals, {}, ())
    part = trace.within(Limits(*limits), start, window, scale)
    assert len(part.arrivals) + sum(part.dropped.values()) == part.rows == len(rows)
    context, prompt, cache = (most or 10**9 for most in limits)
    for one in part.arrivals:
        assert 0 <= one.time_s <= window
        assert one.input <= prompt
        assert one.input + one.output <= min(context, cache)
    assert set(part.dropped) <= {TOO_LONG, NO_BATCH, NO_ROOM, EARLY, LATE}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arrival,input,output\n", "holds no requests"),
        ("arrival,input\n1,2\n", "are of no known form; expected arrival, input, output"),
        ("arrival,input,output\n1,2.5,3\n", "line 2: arrival = '1', input = '2.5'"),
        ("arrival,input,output\nnan,2,3\n", "line 2: arrival = 'nan'"),
        ("arrival,input,output\n1,-2,3\n", "line 2:"),
        ("num_prefill_tokens,num_decode_tokens\n1,2\n", "no column of arrival times"),
        ('[{"id": "x", "conversations": []}]', "ShareGPT has texts, but neither"),
        ('{"timestamp": 1,', "cannot be read as a trace"),
    ],
)
def test_what_is_no_trace_is_one_sentence(tmp_path: Path, text: str, said: str):
    path = tmp_path / "bad"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_trace(path)


def served(trace: Path, **workload: float) -> Experiment:
    settings = {"mode": "online", "trace": str(trace)} | workload
    return Experiment(
        name="own",
        model=ModelSource(config="Llama-3-8B"),
        cluster=ClusterSource(machines=(MachineGroup(kind="H100", count=2),)),
        profile=ProfileSource(source=ROOFLINE),
        search=SearchSettings(method="petals"),
        workload=msgspec.convert(settings, WorkloadSettings),
    )


def test_long_requests_are_played_as_far_as_the_model_and_the_machines_take_them(tmp_path: Path):
    path = tmp_path / "long.csv"
    rows = [(i / 2, 500 if i % 2 == 0 else 6000, 1500 if i % 5 == 0 else 100) for i in range(120)]
    path.write_text("arrival,input,output\n" + "".join(f"{t},{i},{o}\n" for t, i, o in rows))
    outcome = helix.simulate(served(path))
    found = {metric.name: metric.value for metric in outcome.metrics}
    dropped = {name: v for name, v in found.items() if name.startswith("trace.dropped")}
    assert found["trace.rows"] == found["trace.kept"] + sum(dropped.values()) == 120
    assert found["queries.finished"] == found["trace.kept"] == 120
    assert "120 rows, 120 requests played" in outcome.summary
    half = helix.simulate(served(path, trace_from_s=10.0, duration_s=10.0, rate_scale=2.0))
    assert "41 requests played; dropped: 20 before the slice, 59 after the window" in half.summary


def test_prompts_beyond_the_context_are_counted(tmp_path: Path):
    path = tmp_path / "mooncake.jsonl"
    rows = [
        {"timestamp": 3000 * i, "input_length": 5000 * i + 1, "output_length": 5, "hash_ids": []}
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = helix.simulate(served(path))
    found = {metric.name: metric.value for metric in outcome.metrics}
    assert found[f"trace.dropped {TOO_LONG}"] == 2  # of 8192 tokens
    assert found["trace.kept"] == 2
