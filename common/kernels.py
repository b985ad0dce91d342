"""`compiled`: numba's njit with a cache that knows all of a package's sources.

numba looks at the modification time of the file a function stands in, not at what the function
calls elsewhere; a kernel would survive a change of its callee in another file. So the cache lies in
a folder named by a digest of the package's `inputs`, `plan` and `simulate`, where kernels stand.
"""

import importlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
ROOMS = ("inputs", "plan", "simulate")


def compiled(function: Function) -> Function:
    """Compile a function on its first call; releases the interpreter lock; cached on disk."""
    numba: Any = importlib.import_module("numba")
    config: Any = importlib.import_module("numba.core.config")
    before = config.CACHE_DIR
    config.CACHE_DIR = _cache_folder(function.__module__.partition(".")[0])
    try:
        return numba.njit(cache=True, nogil=True)(function)
    finally:
        config.CACHE_DIR = before


@cache
def _cache_folder(package: str) -> str:
    """Return a folder that can be written: NUMBA_CACHE_DIR, the user's cache, or a temporary."""
    digest = sha256()
    home = Path(str(importlib.import_module(package).__file__)).parent
    for path in sorted(path for room in ROOMS for path in home.glob(f"{room}/**/*.py")):
        digest.update(path.read_bytes())
    name = f"{package}-{digest.hexdigest()[:16]}"
    user = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    for wish in filter(None, (os.environ.get("NUMBA_CACHE_DIR"), f"{user}/quintet")):
        folder = Path(wish) / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return str(folder)
    return str(Path(tempfile.gettempdir()) / f"quintet-{os.getuid()}" / name)
