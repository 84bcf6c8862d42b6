"""Compiles loops over pixels with numba."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function at its first call, to machine code that runs without the interpreter lock.

    The result is cached beside its file or in the user's cache folder. If neither is writable, every process compiles.
    """
    try:
        made = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        made = numba.njit(nogil=True)(function)
    return cast("F", made)
