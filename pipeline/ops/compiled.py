"""Functions compiled by numba, kept compiled in the user's cache folder; imported only where the work is large."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function, inline: str = "never") -> Function:
    """The function in machine code, with the results of NumPy: no fast-math, a division by zero is inf or NaN.

    Importing numba costs about a second, so a module with compiled functions is imported by a function that has found
    its work to be worth it. The machine code is kept in `$PIPELINE_CACHE/numba`, where it can be written.

    Args:
        function: of arrays and numbers.
        inline: "always" writes it out wherever it is called: for a short one in an inner loop.
    """
    import numba

    numba.config.CACHE_DIR = str(_folder())  # type: ignore[attr-defined]
    options: dict[str, Any] = {"error_model": "numpy", "nogil": True, "inline": inline}
    try:
        machine_code: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder can be written: compiled anew by each process
        machine_code = numba.njit(**options)(function)
    return machine_code  # type: ignore[no-any-return]


def _folder() -> Path:
    return Path(os.environ.get("PIPELINE_CACHE") or Path.home() / ".cache" / "vision-pipeline") / "numba"
