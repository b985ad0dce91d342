"""A plan's 1F1B timeline: played, compared with the closed form, traced and drawn.

Read `order`, `timeline`, `compare`, then `trace` and `figure`.
"""

from metis.simulate.compare import Term, compare
from metis.simulate.figure import draw
from metis.simulate.order import one_forward_one_backward
from metis.simulate.timeline import Pass, Timeline, Transfer, play
from metis.simulate.trace import write_trace

__all__ = [
    "Pass",
    "Term",
    "Timeline",
    "Transfer",
    "compare",
    "draw",
    "one_forward_one_backward",
    "play",
    "write_trace",
]
