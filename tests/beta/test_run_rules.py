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
from beta.run.admission import Admission
from beta.run.books import OUTCOMES, Answer, Books
from beta.run.client import Sent, counts_of
from beta.run.endpoint import asked_of
from beta.run.specs import ModelSpec
from beta.simulate import events
from beta.simulate.admission import NOBODY, least_outstanding
from common.errors import InputError

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
    group = Admission(STAGES, margin_s=0.004)
    admitted = [
        group.admit(int(m), float(now), float(now) + slo) is not None
        for now, m in zip(arrival, model, strict=True)
    ]
    assert admitted == good.tolist()


def test_answers_that_come_late_make_admission_careful():
    group = Admission({0: (0.1,)}, margin_s=0.0, limit=1.08)
    predicted = group.admit(0, 10.0, 10.5)
    assert predicted == pytest.approx(10.1)
    group.answered(10.0, predicted, 10.6, 10.5)
    assert group.scale == pytest.approx(1.03)
    assert group.clock.tolist() == pytest.approx([10.6])
    group.answered(10.05, 10.2, 11.0, 10.5)  # admitted before that was learnt: says nothing new
    assert group.clock.tolist() == pytest.approx([10.6])
    for now in (11.0, 12.0, 13.0):
        predicted = group.admit(0, now, now + 0.5)
        assert predicted is not None
        group.answered(now, predicted, now + 0.7, now + 0.5)
    assert group.scale == pytest.approx(1.08)
    in_time = Admission({0: (0.1,)}, margin_s=0.0)
    in_time.answered(10.0, 10.1, 10.4, 10.5)
    assert in_time.scale == 1.0


def test_dispatch_takes_the_least_outstanding_and_the_first_of_equal_ones():
    outstanding = np.array([2, 1, 1, 0])
    assert least_outstanding(np.array([0, 1, 2]), outstanding) == 1
    assert least_outstanding(np.array([0, 2, 1]), outstanding) == 2
    assert least_outstanding(np.array([], np.int64), outstanding) == NOBODY


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
        (b'{"tokens": [1], "model": "x"}', "unknown field"),
        (b'{"tokens": []}', "0 tokens"),
        (b'{"tokens": [%s]}' % b",".join([b"1"] * 33), "33 tokens"),
        (b'{"tokens": [1000]}', "0 to 999"),
        (b'{"tokens": [-1]}', "0 to 999"),
        (b'{"tokens": [1], "slo_s": 0}', "slo_s is 0"),
        (b'{"tokens": [1], "slo_s": 1e9}', "slo_s is 1e"),
    ],
)
def test_wrong_bodies_are_told_in_a_sentence(body: bytes, message: str):
    with pytest.raises(InputError, match=message):
        asked_of(body, MODEL)


def test_a_right_body_is_read():
    asked = asked_of(msgspec.json.encode({"tokens": [1, 2], "slo_s": 0.5}), MODEL)
    assert (asked.tokens, asked.slo_s) == ([1, 2], 0.5)


def test_the_clients_books_count_every_status():
    status = np.array([200, 429, 503, 504, 0, 200])
    sent = Sent(np.zeros(6), status, status == 429, status == 200, np.zeros(6))
    counts = counts_of(sent)
    assert (counts.served, counts.rejected, counts.failed, counts.unanswered) == (2, 1, 2, 1)
    assert counts.sent == sum(counts[1:])
    assert not math.isnan(counts.sent)
