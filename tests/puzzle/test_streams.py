"""The switch beside training: the order of its parts, and the same results on real ranks."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from common.ranks import run_ranks
from puzzle.inputs.layout import Layout
from puzzle.plan.roads import generation_pairs, training_pairs
from puzzle.run.links import Directions
from puzzle.run.streams import Beside, InTurn, streams_of, tensors_in
from tests.ordered.ranks import run_ordered
from tests.puzzle.rank_tasks import open_all_pairs

pytestmark = pytest.mark.timeout(600)


class Recorder:
    """What torch.cuda is asked for, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.current = Stream(self, "main")

    def Stream(self) -> "Stream":  # noqa: N802
        return Stream(self, "side")

    def Event(self) -> "Event":  # noqa: N802
        return Event(self)

    def current_stream(self) -> "Stream":
        return self.current

    @contextmanager
    def stream(self, stream: "Stream"):
        before, self.current = self.current, stream
        yield
        self.current = before


class Stream:
    def __init__(self, recorder: Recorder, name: str) -> None:
        self.recorder, self.name = recorder, name

    def wait_event(self, event: "Event") -> None:
        self.recorder.calls.append((self.name, "waits for what was before on", event.where))


class Event:
    def __init__(self, recorder: Recorder) -> None:
        self.where = ""

    def record(self, stream: Stream) -> None:
        self.where = stream.name


def test_the_side_stream_begins_after_the_update_and_generation_after_the_side_stream():
    cuda = Recorder()
    arranged: Any = Beside(cuda).arrange(
        lambda: cuda.calls.append(("start", cuda.current.name)),
        lambda begun: cuda.calls.append(("finish", cuda.current.name)),
    )
    cuda.calls.append(("the critic's passes", cuda.current.name))
    arranged.take()
    assert cuda.calls == [
        ("side", "waits for what was before on", "main"),
        ("start", "side"),
        ("finish", "side"),
        ("the critic's passes", "main"),
        ("main", "waits for what was before on", "side"),
    ]


def test_on_a_cpu_all_is_done_when_it_is_taken():
    done: list[str] = []
    streams = streams_of(torch.device("cpu"))
    assert isinstance(streams, InTurn)
    arranged = streams.arrange(lambda: done.append("start"), lambda begun: done.append("finish"))
    assert done == []
    arranged.take()
    assert done == ["start", "finish"]


def test_tensors_are_found_in_what_a_switch_gives():
    a, b = torch.zeros(1), torch.ones(1)
    assert list(tensors_in(({"x": a}, (b, 3)))) == [a, b]


def test_connections_of_all_pairs_are_made_in_one_order():
    for rank, ways in enumerate(run_ordered(run_ranks, open_all_pairs, 4)):
        others = [other for other in range(4) if other != rank]
        assert ways == sorted([(rank, o) for o in others] + [(o, rank) for o in others])


def test_a_message_that_was_not_foreseen_is_refused():
    directions = Directions.__new__(Directions)
    pairs = training_pairs(Layout(pipeline=4))
    assert pairs == {(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (0, 3), (3, 0)}
    directions.ways = dict.fromkeys(pairs)  # type: ignore[assignment]
    with pytest.raises(AssertionError):
        directions.towards(0, 2)
    ring = generation_pairs(Layout(pipeline=3), Layout(pipeline=3).places())
    assert ring == {(0, 1), (1, 2), (2, 0), (2, 1)}
