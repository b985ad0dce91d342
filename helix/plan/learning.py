"""What simulations teach the estimate: a correction fitted to what was simulated so far.

The closed form (`helix.plan.estimate`) knows nothing of how requests of different routes get into
each other's way, so it errs by tens of percent, and most among the best placements of a cluster of
fast links. The error follows a few facts of the flow, however; with a correction by them it ranks
the placements of one question well enough to lead a search.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from helix.plan.search_problem import FACTS

NEAR = 0.3  # what is better than the best by e^-0.3 counts as 1/e
RIDGE = 3e-4  # of each placement's weight, against facts that hardly vary


class Lessons:
    """Placements' facts and by what factor the estimate missed them."""

    def __init__(self) -> None:
        self._facts = list[NDArray[np.float64]]()
        self._errors = list[float]()
        self._values = list[float]()

    def learn(self, facts: NDArray[np.float64], estimate: float, simulated: float) -> None:
        """Take in one placement; none is learnt from that lets nothing through."""
        if min(estimate, simulated) > 0:
            self._facts.append(facts)
            self._errors.append(np.log(simulated / estimate))
            self._values.append(np.log(simulated))

    def weights(self) -> NDArray[np.float64]:
        """Return the correction: the logarithm of the factor is their product with the facts.

        Ridge regression about the weighted mean; the first fact is the constant.
        """
        if not self._facts:
            return np.zeros(FACTS)
        facts, errors, values = (
            np.array(self._facts),
            np.array(self._errors),
            np.array(self._values),
        )
        share = np.exp((values - values.max()) / NEAR)
        centre, middle = share @ facts / share.sum(), share @ errors / share.sum()
        away = facts - centre
        normal = (away * share[:, None]).T @ away + RIDGE * len(values) * np.eye(FACTS)
        right = (away * share[:, None]).T @ (errors - middle)
        weights = cast(NDArray[np.float64], np.linalg.solve(normal, right))
        weights[0] = middle - centre[1:] @ weights[1:]
        return weights
