"""The order of passes of 1F1B: what every stage does first, next and last.

Both the timeline (`metis.simulate.timeline`) and the real training (`metis.run.pipeline`) follow
this list, so what is drawn is what is run.
"""

from typing import Literal

Kind = Literal["F", "B"]
"""Forward and backward pass of one micro-batch."""


def one_forward_one_backward(stage: int, *, stages: int, batches: int) -> list[tuple[Kind, int]]:
    """Return the (kind, micro-batch) list of one stage: warm-up, steady phase, cool-down.

    Stage s runs ahead by one forward pass per later stage, S - 1 - s, so that it holds the
    activations of at most S - s micro-batches. PipeDream-Flush, Narayanan et al. 2021, Figure 4.
    """
    ahead = min(stages - 1 - stage, batches)
    order: list[tuple[Kind, int]] = []
    for forward in range(batches):
        order.append(("F", forward))
        if forward >= ahead:
            order.append(("B", forward - ahead))
    order.extend(("B", batch) for batch in range(batches - ahead, batches))
    return order
