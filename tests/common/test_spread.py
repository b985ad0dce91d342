"""Work spread over processes; Ray that starts slowly, or not at all."""

import os
import sys
import types
from collections.abc import Iterator

import pytest

from common import spread as module
from common.errors import CaseError, InputError
from common.spread import spread, start_ray


def square(x: int) -> int:
    if x < 0:
        raise ValueError(f"{x} is negative")
    return x * x


def test_every_task_has_its_result_or_what_it_raised():
    found = dict(spread(square, [3, -1, 5], processes=2))
    assert (found[0], found[2]) == (9, 25)
    assert repr(found[1]) == "ValueError('-1 is negative')"


def test_leaving_early_ends_the_workers():
    results = spread(square, list(range(20)), processes=2)
    next(results)
    results.close()  # type: ignore[attr-defined]


class Slow(types.ModuleType):
    """In Ray's place: a node that is not up in time so many times."""

    def __init__(self, times: int) -> None:
        super().__init__("ray")
        self.times, self.starts, self.stops = times, [], 0

    def init(self, **settings: object) -> None:
        self.starts.append(dict(settings))
        if len(self.starts) <= self.times:
            raise Exception("The current node timed out during startup.")

    def shutdown(self) -> None:
        self.stops += 1


@pytest.fixture
def slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    ray = Slow(request.param)
    monkeypatch.setitem(sys.modules, "ray", ray)
    for name in module.PATIENCE:
        monkeypatch.delenv(name, raising=False)
    yield ray
    for name in module.PATIENCE:
        os.environ.pop(name, None)


@pytest.mark.parametrize("slow", [1], indirect=True)
def test_a_slow_start_is_tried_again_with_rays_limits_raised(slow: Slow):
    assert start_ray("serve.ray", address="local", num_cpus=1) is slow
    assert len(slow.starts) == 2
    assert slow.starts[0] == slow.starts[1]
    assert module.PATIENCE.items() <= os.environ.items()


@pytest.mark.parametrize("slow", [2], indirect=True)
def test_a_start_that_fails_twice_is_one_line(slow: Slow):
    with pytest.raises(CaseError, match="Ray did not start on this machine, twice: The current"):
        start_ray("serve.ray", address="local")
    assert len(slow.starts) == slow.stops == 2


@pytest.mark.parametrize("slow", [0], indirect=True)
def test_a_cluster_that_does_not_answer_is_refused_at_once(slow: Slow):
    with pytest.raises(InputError, match=r"--ray 127\.0\.0\.1:1: no Ray cluster answers there"):
        start_ray("--ray 127.0.0.1:1", address="127.0.0.1:1")
    assert slow.starts == []
