"""The composition root: builds every part from a `ServerConfig`, starts them in order and stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from service import reflection
from service.config import ConfigError
from service.health.readiness import INFERENCE_SERVICE, Readiness
from service.health.servicer import HealthServicer
from service.inference import shared_memory
from service.inference.admission import Admission
from service.inference.servicer import EXTENSIONS, InferenceServicer
from service.observability.calls import CallDurations
from service.observability.endpoint import MetricsEndpoint
from service.observability.machine import Machine
from service.observability.metrics import Metrics
from service.observability.observer import CallObserver
from service.observability.settings_servicer import SettingsServicer
from service.observability.trace_control import TraceControl
from service.repository.control import RepositoryControl
from service.repository.control_mode import Mode
from service.repository.loader import Loader, runner_factory
from service.repository.repository import Repository
from service.repository.servicer import ControlServicer
from service.repository.version_policy import VersionPolicy
from service.runtime.active_runs import ActiveRuns
from service.runtime.batcher import Batching
from service.server.listeners import Listeners
from service.server.served_models import ServedModels
from service.signals import Stopping, rescan_on_hangup
from service.status import ServerStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from service.config import ServerConfig
    from service.observability.tracing import Tracing
    from service.repository.model_version import ServedModel
    from service.rpc.methods import Method
    from service.training.service import TrainingService
    from service.workers.membership import Membership

_log = logging.getLogger(__name__)

_COMPUTE_THREADS = 32
"""Threads for runs too long for the event loop. A model uses at most `CONCURRENT_RUNS` of them, so that a model whose
runs do not end leaves threads to the others; a thread is only started if none is idle."""

_HOLD_S = 0.25
"""How long new calls are held before the transport stops, so that calls on their way get a status and no reset."""
_DISMISSAL_S = 0.02
"""Delay from telling clients to use other connections until the held calls are refused."""
_LOAD_GRACE_S = 5.0
"""Time for a version that is being loaded when the server stops: its thread cannot be stopped."""
_TRANSPORT_GRACE_S = 0.2
"""Time for the last responses to be sent, once nothing runs any more."""


class Server:
    """A running server.

    ``async with Server(config) as server`` listens at once, answers "live", loads and proves the models, and is
    ready when the block is entered (or says in its log and its health service why it is not). Leaving the block
    drains: NOT_SERVING first, then (after the lame-duck time) new calls are refused and running ones finish within
    the grace.
    """

    def __init__(self, config: ServerConfig, member: Membership | None = None) -> None:
        """``member`` is set for one of several workers, which share ports and have cluster-wide methods."""
        self._config = config
        self._member = member
        self._is_listening = False
        self._interrupted = asyncio.Event()
        self._hurried = asyncio.Event()
        self._executor = ThreadPoolExecutor(_COMPUTE_THREADS, thread_name_prefix="compute")
        self._active_runs = ActiveRuns()
        self.repository = Repository(
            config.repository,
            VersionPolicy.parse(config.version_policy),
            Loader(
                require_proof=config.require_proof,
                open_runner=runner_factory(
                    self._executor,
                    Batching(config.max_batch_size, config.max_queue_size, config.max_queue_delay_us),
                    self._active_runs,
                ),
                active_runs=self._active_runs,
            ),
            on_change=self._repository_changed,
        )
        mode = Mode(config.model_control_mode)
        self.control = RepositoryControl(
            self.repository, mode, poll_s=config.repository_poll_s, load_at_start=config.load_model
        )
        self._training = _training(config, ServedModels(self.repository, self.control))
        services = self._training.services if self._training is not None else ()
        self.readiness = Readiness(
            self.repository,
            strict=config.strict_readiness,
            may_be_empty=mode is Mode.EXPLICIT,
            services=services,
        )
        self._admission = Admission()
        inference = InferenceServicer(
            self.repository,
            self._admission,
            self.readiness.server_is_ready,
            allow_non_finite=config.allow_non_finite,
            extensions=sorted((*EXTENSIONS, "logging", *(("trace",) if config.otel else ()))),
        )
        self._traces = TraceControl(is_available=config.otel)
        self.methods: tuple[Method, ...] = (
            *inference.methods(),
            *ControlServicer(self.repository, self.control).methods(),
            *SettingsServicer(self._traces, self.repository.is_ready).methods(),
            *shared_memory.methods(),
            *HealthServicer(self.readiness).methods(),
            *(self._training.methods if self._training is not None else ()),
            *reflection.methods([INFERENCE_SERVICE, "grpc.health.v1.Health", *services]),
        )
        if member is not None:
            self.methods = member.share(self.methods)
        self._tracing = _tracing(self._traces) if config.otel else None
        durations = CallDurations()
        metrics = Metrics(
            self.repository,
            self.readiness.server_is_ready,
            durations,
            Machine(),
            training=self._training.families if self._training is not None else tuple,
        )
        self._metrics = None
        if member is not None:
            member.serve(metrics.families, self.control.rescan)
        elif config.metrics:
            self._metrics = MetricsEndpoint(metrics.families, config.metrics_host, config.metrics_port)
        self._listeners = Listeners(
            config,
            self.methods,
            CallObserver(durations, self._tracing),
            are_shared=member is not None,
            warns=member is None or member.number == 0,
        )

    @property
    def port(self) -> int:
        """The port that is really listened on."""
        return self._listeners.port

    @property
    def control_port(self) -> int | None:
        """The control port that is really listened on; None if there is none."""
        return self._listeners.control_port

    @property
    def metrics_url(self) -> str | None:
        """URL of the metrics; None if they are turned off."""
        return self._metrics.url if self._metrics is not None else None

    def status(self) -> ServerStatus:
        """Describe the present state of the server and its models."""
        models = self.repository.models
        return ServerStatus(
            port=self.port,
            is_ready=self.readiness.server_is_ready(),
            models={name: len(model.ready) for name, model in models.items()},
            serving=tuple(
                f"{name} version {version.version} ({'proven here' if version.is_proven else 'unproven'})"
                for name, model in models.items()
                for version in model.ready
            ),
            problems=tuple(
                problem for name, model in models.items() if not model.ready for problem in _problems(name, model)
            ),
        )

    async def __aenter__(self) -> Server:
        try:
            await self._start()
        except BaseException:
            await self._stop(drain=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop(drain=kind is None)

    async def _start(self) -> None:
        began = time.perf_counter()
        if self._member is not None:
            await self._member.open(self.readiness)
        if self._member is None or self._member.listens_at_once:
            await self._listen()
        if self._metrics is not None:
            await self._metrics.start()
        await self._load()
        await self._listen()
        if self._training is not None:
            self._training.start()
        status = self.status()
        who = "server" if self._member is None else "worker"
        _log.log(
            logging.INFO if status.is_ready else logging.WARNING,
            f"{who} ready" if status.is_ready else f"{who} is up and not ready",
            extra={
                "address": f"{self._config.host}:{self.port}",
                "control": self._listeners.control_address,
                "metrics": self.metrics_url,
                "models": status.models,
                "took_ms": round(1e3 * (time.perf_counter() - began)),
            },
        )
        if self._member is not None:
            self._member.up(status)

    async def _listen(self) -> None:
        if self._is_listening:
            return
        self._is_listening = True
        await self._listeners.start()
        if self._member is not None:
            self._member.take_connections(self._listeners)

    async def _stop(self, *, drain: bool) -> None:
        """Stop the parts that were started; the start may be incomplete."""
        if self._member is not None:
            self._member.leave()
        self.readiness.start_draining()
        self.control.stop()
        pausing = asyncio.ensure_future(self._pause_training(self._config.grace_s if drain else 0.0))
        if drain:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), self._config.lame_duck_s)
            await self._refuse_and_finish()
            asyncio.get_running_loop().call_later(_DISMISSAL_S, self._dismiss)
        await pausing
        if self._member is not None:
            self._member.refuse_connections()
        await self._listeners.stop(_TRANSPORT_GRACE_S if drain else 0)
        # No caller waits for an answer any more. Without this a run that does not end would keep its thread, and Python
        # waits for threads.
        self._active_runs.end_all()
        if self._tracing is not None:
            await self._tracing.stop()
        if self._metrics is not None:
            await self._metrics.stop()
        await self.control.wait_until_stopped(_LOAD_GRACE_S if drain else 0)
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._training is not None:
            self._training.close()
        if self._member is not None:
            await self._member.close()
        _log.info("server stopped" if self._member is None else "worker stopped")

    async def _pause_training(self, timeout_s: float) -> None:
        if self._training is not None:
            await self._training.stop(timeout_s)

    def interrupt(self) -> None:
        """Stop waiting for models that are loading: a file system that hangs must not keep the server from stopping."""
        self._interrupted.set()

    def hurry(self) -> None:
        """End the lame-duck time, but not the grace."""
        self._hurried.set()

    async def _load(self) -> None:
        loading = asyncio.create_task(self._first_look())
        interrupted = asyncio.create_task(self._interrupted.wait())
        await asyncio.wait((loading, interrupted), return_when=asyncio.FIRST_COMPLETED)
        interrupted.cancel()
        if loading.done():
            loading.result()
        else:
            loading.cancel()
            _log.warning("interrupted while the models were loading")

    async def _first_look(self) -> None:
        await self.control.start()
        if self._member is not None:
            await self._member.join()

    async def _refuse_and_finish(self) -> None:
        """Refuse new calls and wait until the running ones are finished.

        If the engine can drain, it first tells clients to use other connections, and serves calls that they begin until
        they have acknowledged it. Otherwise calls that are on their way at the end are held and then refused.
        """
        hold_s = min(_HOLD_S, self._config.grace_s)
        if await self._listeners.drain(hold_s):
            hold_s = 0.0
        self._admission.close()
        await self._admission.wait_until_idle(self._config.grace_s - hold_s)
        self._admission.hold()
        await asyncio.sleep(hold_s)
        if not await self._admission.wait_until_idle(0):
            _log.warning("calls still run after the grace, they are cancelled", extra={"grace_s": self._config.grace_s})

    def _dismiss(self) -> None:
        self._admission.dismiss()
        self.readiness.end_watches()

    def _repository_changed(self) -> None:
        self.readiness.changed()


def _problems(name: str, model: ServedModel) -> list[str]:
    """Why a model has no ready version."""
    refused = [f"{name} version {version.version}: {version.reason}" for version in model.refused]
    return refused or [f"{name}: {model.problem or 'no version'}"]


def _training(config: ServerConfig, served: ServedModels) -> TrainingService | None:
    if not config.training_slots:
        return None
    from service.training.scheduler import Limits
    from service.training.service import DIRECTORY, TrainingService, TrainingUnavailable  # few servers need it

    try:
        return TrainingService(
            repository=config.repository.absolute(),
            directory=(config.training_dir or config.repository / DIRECTORY).absolute(),
            serving=served,
            most_queued=config.training_queue_size,
            limits=Limits(config.training_slots, config.training_memory_mb * 2**20),
        )
    except TrainingUnavailable as error:
        raise ConfigError(f"training_dir: {error}") from error


def _tracing(control: TraceControl) -> Tracing:
    from service.observability import tracing  # OpenTelemetry is an extra, and slow to import

    return tracing.Tracing(tracing.provider_from_environment(), control)


async def serve(
    config: ServerConfig, on_ready: Callable[[ServerStatus], None] = lambda _: None, member: Membership | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    A second SIGTERM ends the lame-duck time, a second Ctrl-C the drain.

    Raises:
        service.config.ConfigError: a file with certificates or tokens cannot be used.
        service.errors.BindError: an address cannot be listened on.
    """
    server = Server(config, member)
    stopping = Stopping(server.interrupt, on_hurried=server.hurry)
    if member is not None:
        member.obey(stopping)
    # Handle SIGHUP first, so that one during the start does not end the process: its rescan waits for the first scan.
    with stopping.on_signals():
        async with rescan_on_hangup(server.control.rescan), server:
            # Objects that exist now stay: exclude them from garbage collection, which would delay calls.
            gc.freeze()
            if not stopping.is_asked:
                on_ready(server.status())
            await stopping.wait()
            _log.info(
                "signal received, draining" if member is None else "draining",
                extra={"lame_duck_s": config.lame_duck_s, "grace_s": config.grace_s},
            )


async def check_addresses(config: ServerConfig) -> None:
    """Listen on every address that a server would listen on, and release it; raises as `serve` does."""
    listeners = Listeners(config, ())
    metrics = MetricsEndpoint(tuple, config.metrics_host, config.metrics_port) if config.metrics else None
    try:
        await listeners.start()
        if metrics is not None:
            await metrics.start()
    finally:
        await listeners.stop(0)
        if metrics is not None:
            await metrics.stop()
