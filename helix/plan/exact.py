"""The MILPs in threads of their own: first a while, then for as long as they may still win.

How long a solver takes to its proof is known to nobody: often a second, sometimes for ever. So
both begin with a small share of the time, wait while the search is at work, which mostly decides,
and go on where they were when it is done. A solver looks at the clock, and a pause holds it there.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, Self

from common.errors import CaseError, InputError
from helix.plan.clock import Clock
from helix.plan.placing import PLACING, warm_start
from helix.plan.question import Made, Question

MOST = 32  # machines: with more, HiGHS has not got beyond its start within minutes


class Exact(NamedTuple):
    """What came of a solver: services and facts, or why there are none."""

    method: str
    made: Made | None
    said: str = ""


class Solvers:
    """The methods `position` and `milp` at work; a context that ends them."""

    def __init__(self, question: Question, seed: int, clock: Clock) -> None:
        """Prepare them for a question, to end with the clock at the latest."""
        self._question, self._seed = question, seed
        self._clock = clock.part(clock.limit_s)
        self._waiting = list[Future[Exact]]()

    def __enter__(self) -> Self:
        """Begin."""
        few = len(self._question.cluster.nodes) <= MOST
        todo: Sequence[Callable[[], Exact]] = (self._position, self._milp if few else self._start)
        self._clock.__enter__()
        self._threads = ThreadPoolExecutor(len(todo))
        self._waiting = [self._threads.submit(one) for one in todo]
        return self

    def begin(self, within_s: float) -> None:
        """Let them work for so many seconds, unless they are done before; then they wait."""
        wait(self._waiting, timeout=within_s)
        self._clock.pause()

    def __exit__(self, *_: object) -> None:
        """End what is still at work."""
        self._clock.stop()
        self._threads.shutdown(cancel_futures=True)
        self._clock.__exit__()

    def next(self, within_s: float) -> Exact | None:
        """Return what comes next, or has by now where that takes longer; None: nothing more."""
        if not self._waiting:
            return None
        self._clock.go_on()
        first = self._waiting.pop(0)
        wait([first], timeout=within_s)
        if not first.done():
            self._clock.stop()
        return first.result()

    def _position(self) -> Exact:
        return self._answer("position")

    def _milp(self) -> Exact:
        return self._answer("milp")

    def _answer(self, method: str) -> Exact:
        try:
            return Exact(method, PLACING[method](self._question, self._seed, self._clock))
        except (InputError, CaseError) as error:
            return Exact(method, None, str(error))

    def _start(self) -> Exact:
        """Return what the MILP begins from, in its place."""
        question = self._question
        try:
            start = warm_start(question)
            if start is None:
                return Exact("milp", None, f"not solved on more than {MOST} machines")
            one = question.alone(question.placed(start.intervals))
        except (InputError, CaseError) as error:
            return Exact("milp", None, str(error))
        said = f"not solved on more than {MOST} machines; this is what it begins from"
        return Exact("milp", Made((one,), {"cut": (f"milp: {said}",)}), said)
