"""Threads that are watched: one that dies says so, and whoever started it is told."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("helix")

MOST_SAID = 200  # characters of an error's own words


def watched(name: str, work: Callable[[], None], died: Callable[[Exception], None]) -> None:
    """Do the work in a thread; `died` is told, from that thread, of an exception that ends it."""

    def run() -> None:
        try:
            work()
        except Exception as error:
            log.exception("the thread %r died", name)
            died(error)

    threading.Thread(target=run, daemon=True, name=name).start()


def signature(error: BaseException) -> str:
    """Return an error's type and first line: what two errors have in common if they are one."""
    first = next(iter(str(error).splitlines()), "").strip()[:MOST_SAID]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
