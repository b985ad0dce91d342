"""Say what happens: log lines on the console and in a file per rank, progress, one-line errors.

Results go to stdout. All this goes to stderr and, as JSON lines, to `<out>/<artifact>/log.jsonl`
(`log-rank<k>.jsonl` for the other ranks of a torchrun launch).
"""

import errno
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import Progress

from common.errors import InputError

_CONSOLE = Console(stderr=True)
_log = logging.getLogger(__name__)


class _Json(logging.Formatter):
    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        when, message = self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"), super().format(record)
        line = {"time": when, "level": record.levelname, "logger": record.name, "message": message}
        return msgspec.json.encode(line).decode()


def setup(artifact: str, out: Path | None = None, verbose: bool = False) -> logging.Logger:
    """Set the process's logging up anew and return the artifact's logger.

    Rank 0 (environment variable RANK) speaks on the console from INFO on (DEBUG when verbose),
    other ranks and other libraries from WARNING on. Without `out` no file is written.
    """
    rank, level = _rank(), logging.DEBUG if verbose else logging.INFO
    rich = RichHandler(console=_CONSOLE, show_time=False, show_level=False, show_path=False)
    handlers: list[logging.Handler] = [rich if _CONSOLE.is_terminal else logging.StreamHandler()]
    handlers[0].setLevel(level if rank == "0" else logging.WARNING)
    if out is not None:
        file = Path(out, artifact, "log.jsonl" if rank == "0" else f"log-rank{rank}.jsonl")
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
        handlers[1].setFormatter(_Json())
    form = (
        "%(levelname)s %(message)s" if rank == "0" else f"%(levelname)s [rank {rank}] %(message)s"
    )
    logging.basicConfig(handlers=handlers, format=form, force=True)
    for name in (artifact, "common"):
        logging.getLogger(name).setLevel(level)
    return logging.getLogger(artifact)


@contextmanager
def progress(total: int, what: str) -> Generator[Callable[..., None]]:
    """Show how far `total` units of work are; the caller calls `advance(n=1)` as they finish.

    A bar on a terminal, elsewhere a log line about every tenth of the work, nothing at all when
    nothing is left to do. Ranks other than 0 stay silent.
    """
    done, start, idle = 0, time.monotonic(), total <= 0 or _rank() != "0"
    with Progress(console=_CONSOLE, disable=idle or not _CONSOLE.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def advance(n: int = 1) -> None:
            nonlocal done
            done += n
            bar.advance(task, n)
            if bar.disable and not idle and done * 10 // total > (done - n) * 10 // total:
                _log.info("%s: %d of %d, %.0f s", what, done, total, time.monotonic() - start)

        yield advance


@contextmanager
def guard(verbose: bool = False) -> Generator[None]:
    """Turn what a user can mend into one line on stderr and an exit status.

    `InputError` and an `OSError` on a path exit with 2, Ctrl-C with 130; with `verbose` after
    their traceback. Anything else is a defect and passes.
    """
    try:
        yield
    except (KeyboardInterrupt, InputError, OSError) as error:
        line, status = f"error: {error}", 2
        if isinstance(error, KeyboardInterrupt):
            line, status = "interrupted: what was finished is kept", 130
        elif isinstance(error, OSError):
            if error.filename is None and error.errno != errno.ENOSPC:
                raise  # a socket, or the closed pipe of `| head`
            line = f"error: {error.filename or 'results'}: {error.strerror}"
        if verbose:
            traceback.print_exc()
        print(" ".join(line.split()), file=sys.stderr)
        raise SystemExit(status) from error


def _rank() -> str:
    return os.environ.get("RANK", "0")
