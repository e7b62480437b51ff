"""One typed way to compile a numeric kernel: strict typing sees through the compiler's decorator."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` to machine code at its first call, without the GIL, kept on disk afterwards.

    Call it with the same dtypes and dimensions each time: every new combination costs seconds to compile.
    """
    return cast(F, numba.njit(cache=True, nogil=True)(function))
