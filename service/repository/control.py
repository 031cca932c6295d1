"""Load and unload models while the server runs, after changes of the directory or on request."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from models.artifact.publication import MODEL_NAME
from service.errors import ControlNotAllowed, InvalidRequest, ServerStopping
from service.repository.control_mode import EVERY_MODEL, Mode, start_names
from service.repository.renewal import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.repository.load_parameters import LoadParameters
    from service.repository.repository import Repository

_log = logging.getLogger(__name__)

T = TypeVar("T")


class RepositoryControl:
    """Changes a repository, one change at a time, in a worker thread. Belongs to one event loop."""

    def __init__(
        self, repository: Repository, mode: Mode = Mode.NONE, *, poll_s: float = 2.0, load_at_start: str = ""
    ) -> None:
        """``poll_s`` is the interval in seconds between two scans in poll mode. ``load_at_start`` lists the models that
        are loaded at the start in explicit mode, separated by commas, or is ``*`` for all.
        """
        self.mode = mode
        self._repository = repository
        self._poll_s = poll_s
        self._load_at_start = load_at_start
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="repository")
        self._poller: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def start(self) -> None:
        """Load the models for the first time, after which the repository counts as loaded; then begin to poll."""
        names = start_names(self._load_at_start)
        if self.mode is Mode.EXPLICIT and names != [EVERY_MODEL]:
            await self._change(lambda: self._repository.load_named(names))
        else:
            await self._change(self._repository.load_all)
        if self.mode is Mode.POLL:
            self._poller = asyncio.create_task(self._poll(), name="repository-poll")

    def stop(self) -> None:
        """Stop polling, and begin no further load."""
        self._is_stopping = True
        self._repository.stop()
        if self._poller is not None:
            self._poller.cancel()

    async def wait_until_stopped(self, timeout_s: float) -> None:
        """Wait until polling and a load in progress have ended, at most ``timeout_s`` seconds each."""
        if self._poller is not None:
            await asyncio.wait([self._poller], timeout=timeout_s)
        idle = asyncio.get_running_loop().run_in_executor(self._thread, lambda: None)
        await asyncio.wait([idle], timeout=timeout_s)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def rescan(self) -> None:
        """Scan the directory at once, and retry refused versions. Does nothing in explicit mode but log a warning."""
        if self.mode is Mode.EXPLICIT:
            _log.warning("no rescan: the models are controlled by request (model_control_mode explicit)")
            return
        _log.info("rescanning the repository")
        await self._change(lambda: self._repository.refresh(retry=True))

    async def look(self) -> None:
        """Scan the directory at once in poll mode, as the next poll would; does nothing in other modes."""
        if self.mode is Mode.POLL and not self._is_stopping:
            await self._change(self._repository.refresh)

    async def load(self, name: str, parameters: LoadParameters) -> None:
        """Load or reload a model.

        Raises:
            ControlNotAllowed: the mode is not explicit.
            InvalidRequest: ``name`` is not a valid model name.
            LoadFailed, LoadRefused: raised as by `Repository.load`.
            ServerStopping: the server stops.
        """
        self.check(name)

        def change() -> None:
            with parameters.directory() as directory:
                self._repository.load(name, directory, parameters.settings)

        await self._change(change)
        _log.info("model loaded on request", extra={"model": name})

    async def unload(self, name: str) -> None:
        """Unload a model; raises as `load` does. Unloading an unknown model succeeds, as in Triton."""
        self.check(name)
        await self._change(lambda: self._repository.unload(name))

    async def names_on_disk(self) -> list[str]:
        """Names of the models that could be loaded; empty if the directory cannot be read."""
        try:
            return await asyncio.to_thread(self._repository.names_on_disk)
        except OSError:
            return []

    def check(self, name: str) -> None:
        """Check that a model of this name may be loaded or unloaded by request; raises as `load` does."""
        if self.mode is not Mode.EXPLICIT:
            raise ControlNotAllowed(
                "explicit model load / unload is not allowed if polling is enabled "
                f"(model_control_mode is {self.mode.value}, it would have to be {Mode.EXPLICIT.value})"
            )
        if not MODEL_NAME.fullmatch(name):
            raise InvalidRequest(
                f"model name: got {name[:200]!r}, expected 1 to 128 letters, digits, '.', '_' or '-', the first a "
                "letter or digit",
                field="model_name",
            )

    async def _change(self, change: Callable[[], T]) -> T:
        if self._is_stopping:
            raise ServerStopping("Server exiting")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, change)
        except Stopped as error:
            raise ServerStopping("Server exiting") from error

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._change(self._repository.refresh)
            except ServerStopping:
                return
            except Exception:  # noqa: BLE001 - the poller must survive, or no new version is seen
                _log.exception("the repository could not be looked at, it will be tried again")
