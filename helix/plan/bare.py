"""`bare`: compiled functions that make no array, so that numba counts no references in them."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from common.kernels import compiled

Function = TypeVar("Function", bound=Callable[..., Any])


def bare(function: Function) -> Function:
    """Do as `compiled` for a function that makes no array and calls only such functions.

    The counting of references otherwise takes most of the time of small functions that pass many
    arrays on. Making an array in one is a compile-time error.
    """
    kernel: Any = compiled(function)
    kernel.targetoptions["_nrt"] = False  # numba reads it when the first call compiles
    return cast("Function", kernel)
