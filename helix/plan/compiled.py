"""`compiled`: numba's njit with a cache that knows all of the kernels' sources.

numba looks at the modification time of the file a function stands in, not at what the function
calls elsewhere; a kernel would survive a change of its callee in another file. So the cache lies
in a folder named by a digest of every source that a kernel can depend on.
"""

import os
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., Any])

KERNELS_IN = ("inputs", "plan", "simulate")


def _sources_digest() -> str:
    digest, package = sha256(), Path(__file__).parents[1]
    for folder in KERNELS_IN:
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    """Return a folder that can be written: NUMBA_CACHE_DIR, the user's cache, or a temporary."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    wishes = [os.environ.get("NUMBA_CACHE_DIR"), f"{home}/quintet"]
    for wish in filter(None, wishes):
        folder = Path(wish) / f"helix-{_sources_digest()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.gettempdir()) / f"quintet-{os.getuid()}" / f"helix-{_sources_digest()}"


_FOLDER = str(_cache_folder())


def compiled(function: Function) -> Function:
    """Compile a function on its first call; releases the interpreter lock; cached on disk."""
    return _compiled(function)


def bare(function: Function) -> Function:
    """Do as `compiled` for a function that makes no array and calls only such functions.

    numba then leaves out the counting of references, which otherwise takes most of the time of
    small functions that pass many arrays on. Making an array in one is a compile-time error.
    """
    return _compiled(function, _nrt=False)


def _compiled(function: Function, **options: Any) -> Function:
    # numba fills this module with its settings as it starts, unseen by a type checker.
    before: object = vars(config)["CACHE_DIR"]
    config.CACHE_DIR = _FOLDER  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return cast(Function, numba.njit(cache=True, nogil=True, **options)(function))
    finally:
        config.CACHE_DIR = before  # pyright: ignore[reportAttributeAccessIssue]
