"""numba's compiler as this project uses it: float arithmetic in the written order, and a cache that may be damaged.

Compiled code is cached where numba caches it: in ``__pycache__`` beside the sources, in the user's cache directory if
that is not writable, or in ``NUMBA_CACHE_DIR``. Code that cannot be read from there is compiled again; code that cannot
be written there is compiled in each process.

``error_model="numpy"``: a division by zero gives an infinity and no exception, so that loops can be vectorised. There
is no fastmath: the order of every sum is the one that is written, on every run.
"""

from __future__ import annotations

import contextlib
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def inlined(function: _Function) -> _Function:
    """Compile a helper function that `compiled` functions call at no cost."""
    return cast("_Function", numba.njit(error_model="numpy")(function))


def compiled(function: _Function) -> _Function:
    """Compile a function when it is first called, or load it from the cache. It releases the GIL while it runs."""
    dispatcher: Any = numba.njit(error_model="numpy", nogil=True)(function)
    with contextlib.suppress(OSError, RuntimeError):  # numba raises these if it can write nowhere
        dispatcher._cache = _Cache(function)
    return cast("_Function", dispatcher)


class _Cache(FunctionCache):
    """numba's cache, except that it never fails, and is invalid after a change of any file of this package.

    numba itself checks the file of the function only, and would keep old code of the functions that it calls.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]  # numba is typed in part
        self._cache_file._source_stamp = _sources_sha256()

    def load_overload(self, sig: Any, target_context: Any) -> Any:  # noqa: ANN401  (numba's own)
        """The compiled code, or None if it is not there or cannot be read."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]  # numba is typed in part
        except Exception:  # noqa: BLE001  (a damaged pickle may raise anything)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ANN401  (numba's own)
        """Store compiled code if that is possible."""
        try:
            try:
                super().save_overload(sig, data)  # type: ignore[no-untyped-call]  # numba is typed in part
            except Exception:  # noqa: BLE001  (as above: the index is read first)
                self.flush()  # type: ignore[no-untyped-call]  # numba is typed in part
                super().save_overload(sig, data)  # type: ignore[no-untyped-call]  # numba is typed in part
        except Exception:  # noqa: BLE001, S110  (a full disk, for instance: the next process compiles again)
            pass


@cache
def _sources_sha256() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
