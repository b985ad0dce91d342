"""Say what happens: console and JSON-lines log of each rank, progress, one-line errors.

Results go to stdout; everything here goes to stderr and, where an output folder is given, to
`<out>/<artifact>/log.jsonl` (`log-rank<k>.jsonl` for the other ranks of a torchrun launch).
"""

import errno
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import msgspec
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from common.errors import InputError

_CONSOLE = Console(stderr=True)
_NAME = "quintet"  # marks the handlers that setup() owns, so that calling it twice adds none
_log = logging.getLogger(__name__)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "rank": _rank(),
            "at": f"{record.module}:{record.lineno}",
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class _Plain(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr  # the one of now: tests and notebooks replace it
        super().emit(record)


def setup(artifact: str, out: Path | None = None, verbose: bool = False) -> logging.Logger:
    """Set the process's logging up and return the artifact's logger.

    Rank 0 (environment variable RANK) speaks on the console from INFO on (DEBUG when verbose),
    other ranks and other libraries from WARNING on. Without `out` no file is written.
    """
    rank, root = _rank(), logging.getLogger()
    for handler in [h for h in root.handlers if h.get_name() == _NAME]:
        root.removeHandler(handler)
        handler.close()
    level = logging.DEBUG if verbose else logging.INFO
    _add(root, _console_handler(rank), level if rank == "0" else logging.WARNING)
    if out is not None:
        folder = Path(out) / artifact
        folder.mkdir(parents=True, exist_ok=True)
        name = "log.jsonl" if rank == "0" else f"log-rank{rank}.jsonl"
        file = logging.FileHandler(folder / name, encoding="utf-8")
        file.setFormatter(_JsonLines())
        _add(root, file, level)
    for name in (artifact, "common"):
        logging.getLogger(name).setLevel(level)
    return logging.getLogger(artifact)


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[..., None]]:
    """Show how far `total` units of work are; the caller calls `advance(n=1)` as they finish.

    A bar on a terminal, elsewhere a log line about every tenth of the work, nothing at all when
    nothing is left to do. Ranks other than 0 stay silent.
    """
    if total <= 0 or _rank() != "0":
        yield lambda n=1: None
    elif not _CONSOLE.is_terminal:
        yield _lines(total, what)
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=_CONSOLE) as bar:
            task = bar.add_task(what, total=total)
            yield lambda n=1: bar.advance(task, n)


@contextmanager
def guard(verbose: bool = False) -> Iterator[None]:
    """Turn what a user can mend into one line on stderr and an exit status.

    `InputError` and an `OSError` on a path exit with 2, Ctrl-C with 130. Anything else is a
    defect and keeps its traceback; with `verbose` all of them show it.
    """
    try:
        yield
    except KeyboardInterrupt:
        _leave("interrupted: what was finished is kept", 130, verbose)
    except InputError as error:
        _leave(f"error: {error}", 2, verbose)
    except BrokenPipeError:
        raise  # the reader of our output left (`| head`): the command line knows what to do
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        _leave(f"error: {error.filename or 'writing'}: {error.strerror}", 2, verbose)


def _leave(line: str, status: int, verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
    print(" ".join(line.split()), file=sys.stderr)
    raise SystemExit(status)


def _lines(total: int, what: str) -> Callable[..., None]:
    done, shown, start = 0, 0, time.monotonic()

    def advance(n: int = 1) -> None:
        nonlocal done, shown
        done += n
        if done * 10 // total == shown and done < total:
            return
        shown, spent = done * 10 // total, time.monotonic() - start
        left = f", about {spent / done * (total - done):.0f} s left" if done < total else ""
        _log.info("%s: %d of %d, %.0f s%s", what, done, total, spent, left)

    return advance


def _add(root: logging.Logger, handler: logging.Handler, level: int) -> None:
    handler.set_name(_NAME)
    handler.setLevel(level)
    root.addHandler(handler)


def _console_handler(rank: str) -> logging.Handler:
    if _CONSOLE.is_terminal and rank == "0":
        return RichHandler(console=_CONSOLE, show_path=False, markup=False)
    handler = _Plain()
    prefix = "" if rank == "0" else f"[rank {rank}] "
    handler.setFormatter(logging.Formatter(f"{prefix}%(levelname)s %(message)s"))
    return handler


def _rank() -> str:
    return os.environ.get("RANK", "0")
