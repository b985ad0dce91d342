"""Say what happens, on stderr and as JSON lines: log of each rank, progress, one-line errors."""

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
from common.signals import interruptible

_CONSOLE = Console(stderr=True)
_log = logging.getLogger(__name__)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        line = {"time": when, "level": record.levelname, "logger": record.name}
        return msgspec.json.encode(line | {"message": super().format(record)}).decode()


def setup(artifact: str, out: Path | None = None, verbose: bool = False) -> logging.Logger:
    """Return the artifact's logger; it logs on stderr and, given `out`, into a file there.

    Other ranks than 0 and libraries show warnings only; the file of each rank has all.
    """
    rank, level = os.environ.get("RANK", "0"), logging.DEBUG if verbose else logging.INFO
    rich = RichHandler(console=_CONSOLE, show_time=False, show_level=False, show_path=False)
    handlers: list[logging.Handler] = [rich if _CONSOLE.is_terminal else logging.StreamHandler()]
    handlers[0].setLevel(level if rank == "0" else logging.WARNING)
    if out is not None:
        file = Path(out, artifact, "log.jsonl" if rank == "0" else f"log-rank{rank}.jsonl")
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
        handlers[1].setFormatter(_Json())
    form = f"%(levelname)s {'' if rank == '0' else f'[rank {rank}] '}%(message)s"
    logging.basicConfig(handlers=handlers, format=form, force=True)
    for name in (artifact, "common"):
        logging.getLogger(name).setLevel(level)
    return logging.getLogger(artifact)


@contextmanager
def progress(total: int, what: str) -> Generator[Callable[..., None]]:
    """Yield `advance(n=1)`; rank 0 shows a bar on a terminal, else a log line every tenth."""
    start, done, idle = time.monotonic(), 0, total <= 0 or os.environ.get("RANK", "0") != "0"
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
def guard(verbose: bool = False, artifact: str = "") -> Generator[None]:
    """Turn what a user can mend into one line and status 2, Ctrl-C into 130; defects pass."""
    try:
        with interruptible() as check:
            try:
                yield
            except Exception:
                check()  # whatever a Ctrl-C that got lost has broken is no defect
                raise
    except (KeyboardInterrupt, InputError, OSError, ModuleNotFoundError) as error:
        line, status = f"error: {error}", 2
        if isinstance(error, ModuleNotFoundError):
            if str(error.name).partition(".")[0] in (artifact, "common"):
                raise  # a defect of ours
            extra = artifact.replace("_", "-")
            line = f"error: {artifact} needs {error.name}: pip install 'quintet[{extra}]'"
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
