"""Single chains of machines: the best one of all machines, and one pipeline for each kind."""

from collections.abc import Sequence

from helix.plan.placement import UNUSED

Intervals = tuple[tuple[int, int], ...]


def best_chain(rates: Sequence[Sequence[float]], layers: int) -> tuple[float, Intervals]:
    """Return the best flow of one chain and its runs of layers by machine; links are ignored.

    `rates` are tokens per second for 1, 2, ... layers, by machine; those that add least are left
    out. (0, all unused) if the model does not fit.
    """
    for flow in sorted({rate for own in rates for rate in own}, reverse=True):
        allowed = [[k for k, rate in enumerate(own, 1) if rate >= flow] for own in rates]
        widths = _widths(allowed, layers)
        if widths:
            return flow, _in_a_row(widths)
    return 0.0, (UNUSED,) * len(rates)


def _widths(allowed: Sequence[Sequence[int]], layers: int) -> list[int] | None:
    """Return a width for each machine, 0 or one it is allowed, that add up to all layers."""
    reached: list[dict[int, int]] = [{0: 0}]  # after each machine: layers so far -> last width
    for own in allowed:
        here = dict[int, int]()
        for sofar in reached[-1]:
            for width in (0, *own):
                if sofar + width <= layers and width >= here.get(sofar + width, -1):
                    here[sofar + width] = width
        reached.append(here)
    if layers not in reached[-1]:
        return None
    widths, sofar = list[int](), layers
    for here in reversed(reached[1:]):
        widths.append(here[sofar])
        sofar -= here[sofar]
    return widths[::-1]


def _in_a_row(widths: Sequence[int]) -> Intervals:
    intervals, start = list[tuple[int, int]](), 0
    for width in widths:
        intervals.append((start, start + width) if width else UNUSED)
        start += width
    return tuple(intervals)
