"""How fast the wire is between two processes of this machine's kind: one frame there and back."""

import math
import statistics
import time
from queue import SimpleQueue

from helix.run.messages import Free, Message
from helix.run.wire import Link, Listener

PINGS, LARGE, LARGE_FRAMES = 200, 8 << 20, 12


def measured_link() -> tuple[float, float]:
    """Return bytes per second of large frames, and seconds one way of small ones, on loopback."""
    back, there = SimpleQueue[float](), SimpleQueue[float]()

    def echo(sender: int, message: Message, payload: bytearray) -> None:
        if payload:
            there.put(time.perf_counter())
        else:
            answer.send(Free([]))

    one = Listener("127.0.0.1", "", echo, lambda _: None)
    other = Listener("127.0.0.1", "", lambda *_: back.put(time.perf_counter()), lambda _: None)

    def broke(error: Exception) -> None:  # whoever waits for an answer must not wait for ever
        back.put(math.nan)
        there.put(math.nan)

    ask = Link(0, "", one.address, lambda *_: None, broke)
    answer = Link(1, "", other.address, lambda *_: None, broke)
    try:
        trips = list[float]()
        for _ in range(PINGS):
            begin = time.perf_counter()
            ask.send(Free([]))
            trips.append(back.get() - begin)
        payload = bytes(LARGE)
        for _ in range(LARGE_FRAMES):
            ask.send(Free([]), payload)
        ends = [there.get() for _ in range(LARGE_FRAMES)]
    finally:
        for link in (ask, answer):
            link.close()
        for listener in (one, other):
            listener.close()
    rate = LARGE * (LARGE_FRAMES - 1) / (ends[-1] - ends[0])
    return rate, statistics.median(trips) / 2
