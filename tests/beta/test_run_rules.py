"""Admission, dispatch, books and what a request may say: the parts of the service, one by one."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta.inputs.model import Model
from beta.inputs.playing import Delays
from beta.inputs.profile import Config, Profile, Record
from beta.inputs.shapes import SHAPES
from beta.inputs.workload import Workload
from beta.plan.placement import Group, Placement
from beta.run.asked import asked_of
from beta.run.books import OUTCOMES, Answer, Books
from beta.run.client import Sent, counts_of
from beta.run.line import Line
from beta.run.specs import ModelSpec
from beta.run.text import Tokenizers
from beta.simulate import events
from beta.simulate.admission import NOBODY, least_outstanding, together
from common.errors import InputError
from tests.beta.virtual_time import played

MODEL = ModelSpec(name="m", shape=SHAPES["bert-micro"], seed=0, slo_s=1.0)
STAGES = {0: (0.1, 0.2, 0.1), 1: (0.3, 0.05, 0.2)}


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.sampled_from([0, 1])), min_size=1, max_size=60),
    st.floats(0.45, 3),
)
def test_a_group_admits_whom_the_event_simulator_admits(gaps, slo):
    arrival = np.cumsum([gap for gap, _ in gaps])
    model = np.array([m for _, m in gaps], np.int32)
    config = Config(1, 3)
    models = tuple(
        Model(
            name=str(m),
            profile=Profile(model=str(m), records={config: Record(stage_s={1: stages})}),
            slo_s=slo,
        )
        for m, stages in STAGES.items()
    )
    none = Delays(http_s=0, dispatch_s=0, backend_s=0, deviation_s=0, margin_s=0.004)
    placement = Placement((Group(config, (0, 1)),))
    good = events.simulate(Workload(arrival, model), placement, models, delays=none).good
    given = {m: {1: stages} for m, stages in STAGES.items()}
    line = Line(given, margin_s=0.004, learning=False)
    asked = list(zip(model.tolist(), arrival.tolist(), [slo] * len(model), strict=True))
    answers = played(line, given, asked)
    assert [answer.admitted for answer in answers] == good.tolist()


def test_dispatch_takes_the_least_outstanding_and_the_first_of_equal_ones():
    outstanding = np.array([2, 1, 1, 0])
    assert least_outstanding(np.array([0, 1, 2]), outstanding) == 1
    assert least_outstanding(np.array([0, 2, 1]), outstanding) == 2
    assert least_outstanding(np.array([], np.int64), outstanding) == NOBODY


def test_a_request_goes_where_its_model_waits_unless_that_is_a_batch_busier():
    groups, own = np.array([0, 1, 2]), np.array([0, 3, 1])
    assert together(groups, np.array([2, 5, 2]), own, 16) == 1
    assert together(groups, np.array([2, 5, 2]), own, 3) == 2
    assert together(groups, np.array([2, 5, 4]), np.zeros(3, np.int64), 16) == 0
    assert together(groups[:0], own, own, 4) == NOBODY


@given(st.lists(st.tuples(st.sampled_from(OUTCOMES), st.integers(1, 3), st.booleans())))
def test_the_books_balance_at_every_moment(answers):
    books = Books()
    for outcome, tries, answered in answers:
        books.receive()
        assert books.totals().balanced
        if answered:
            books.answer("m", Answer(outcome, 200, tries=tries), 0.1)
        assert books.totals().balanced
    totals = books.totals()
    assert totals.received == len(answers)
    assert totals.in_flight == sum(not answered for *_, answered in answers)
    assert f"beta_received_total {float(len(answers))}" in books.page().decode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "expected"),
        (b"[1,2]", "expected"),
        (b'{"tokens": "abc"}', "expected"),
        (b'{"tokens": [1], "\xff": 1}', "not UTF-8"),
        (b'{"tokens": [1180591620717411303424]}', "0 to 999"),
        (b'{"tokens": ' + b"[" * 100_000, "expected"),
        (b'{"tokens": [1], "model": "x"}', "unknown field"),
        (b'{"tokens": []}', "0 tokens"),
        (b"{}", "one of both"),
        (b'{"tokens": [1], "text": "a"}', "one of both"),
        (b'{"text": "a"}', "m has no tokenizer; send tokens"),
        (b'{"tokens": [%s]}' % b",".join([b"1"] * 33), "33 tokens"),
        (b'{"tokens": [1000]}', "0 to 999"),
        (b'{"tokens": [-1]}', "0 to 999"),
        (b'{"tokens": [1], "slo_s": 0}', "slo_s is 0"),
        (b'{"tokens": [1], "slo_s": 1e9}', "slo_s is 1e"),
    ],
)
def test_wrong_bodies_are_told_in_a_sentence(body: bytes, message: str):
    with pytest.raises(InputError, match=message):
        asked_of(body, MODEL, Tokenizers((MODEL,)).tokens)


def test_a_right_body_is_read():
    body = msgspec.json.encode({"tokens": [1, 2], "slo_s": 0.5})
    asked = asked_of(body, MODEL, Tokenizers((MODEL,)).tokens)
    assert (asked.tokens, asked.slo_s) == ([1, 2], 0.5)


def test_the_clients_books_count_every_status():
    status = np.array([200, 429, 503, 504, 0, 200])
    sent = Sent(np.zeros(6), status, status == 429, status == 200, np.zeros(6))
    counts = counts_of(sent)
    assert (counts.served, counts.rejected, counts.failed, counts.unanswered) == (2, 1, 2, 1)
    assert counts.sent == sum(counts[1:])
    assert not math.isnan(counts.sent)
