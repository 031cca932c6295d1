"""numba's compiler as this project uses it: float arithmetic as it is written, and a cache that may be broken.

Compiled code is kept where numba keeps it: in ``__pycache__`` beside the sources, in the user's cache directory where
nothing can be written there, or in ``NUMBA_CACHE_DIR``. What cannot be read from there is compiled again; what cannot
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
    """A part of `compiled` functions, which they call at no cost."""
    return cast("_Function", numba.njit(error_model="numpy")(function))


def compiled(function: _Function) -> _Function:
    """A function that is compiled when it is first called, or taken from the cache. Lets other threads run."""
    dispatcher: Any = numba.njit(error_model="numpy", nogil=True)(function)
    with contextlib.suppress(OSError, RuntimeError):  # numba's way to say that there is nowhere to write to
        dispatcher._cache = _Cache(function)
    return cast("_Function", dispatcher)


class _Cache(FunctionCache):
    """numba's cache, but that it never fails, and is stale when any file of this package has changed.

    numba itself looks at the file of the function only, and would go on with old code of what that function calls.
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
        """Keeps compiled code if that is possible."""
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
