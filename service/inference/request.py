"""Read inference requests: look up a plan by the request's bytes, and parse only those without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from service.errors import InvalidRequest
from service.inference.request_plan import Plan, varint
from service.pb.open_inference_pb2 import ModelInferRequest

if TYPE_CHECKING:
    from service.inference.tensors import DecodedRequest
    from service.repository.repository import Repository
    from service.runtime.runner import Runner

_RAW_INPUT_TAG: Final = b"\x3a"
"""Field 7 of ModelInferRequest, length-delimited."""
_MOST_PLANS: Final = 256
_LONGEST_KEY: Final = 4096
_VIEWED_BYTES: Final = 16_384
"""Contents of at least this size are viewed in place, since a copy would cost more than the view."""


class ReadRequest:
    """A ModelInferRequest with its serialized bytes, parsed on first use."""

    __slots__ = ("_message", "_reader", "data")

    def __init__(self, reader: RequestReader, data: bytes) -> None:
        self._reader = reader
        self.data = data
        """The request's bytes as received."""
        self._message: ModelInferRequest | None = None

    @property
    def message(self) -> ModelInferRequest:
        """The request as a message, parsed on first use; raises InvalidRequest if the bytes cannot be parsed."""
        if self._message is None:
            try:
                self._message = self.parse()
            except DecodeError as error:
                raise InvalidRequest(
                    f"a request cannot be parsed: {len(self.data)} bytes of another message"
                ) from error
        return self._message

    def parse(self) -> ModelInferRequest:
        """Parse the bytes as a message; raises google.protobuf.message.DecodeError."""
        self._message = ModelInferRequest.FromString(self.data)
        return self._message

    @property
    def id(self) -> str:
        """The request id that the caller gave; empty without one, and while the request is not parsed."""
        return self._message.id if self._message is not None else ""

    def learn(self, runner: Runner, asked: DecodedRequest) -> None:
        """Make a plan from this request, as `RequestReader.learn` describes."""
        self._reader.learn(self, runner, asked)


class RequestReader:
    """Reads requests and caches a plan for each kind that it has seen. Belongs to one event loop."""

    def __init__(self, repository: Repository, *, checks_finite: bool, is_streamed: bool) -> None:
        self._repository = repository
        self._checks_finite = checks_finite
        self._is_streamed = is_streamed
        # Plans by the bytes before the contents, and the length of the contents by the length of the whole request.
        self._plans: dict[bytes, Plan] = {}
        self._contents_bytes: dict[int, int] = {}

    def parse(self, data: bytes) -> ReadRequest:
        """Parse a request; raises google.protobuf.message.DecodeError for bytes that are no request."""
        request = ReadRequest(self, data)
        request.parse()
        return request

    def read(self, data: bytes) -> ReadRequest:
        """Wrap a request's bytes without parsing them yet."""
        return ReadRequest(self, data)

    def known(self, data: bytes) -> tuple[Plan, Runner, bytes | memoryview] | None:
        """Return the plan for a request, its runner and the request's contents; None where there is no plan."""
        size = self._contents_bytes.get(len(data))
        if size is None:
            return None
        start = len(data) - size
        key = data[:start]
        plan = self._plans.get(key)
        if plan is None:
            return None
        served = self._repository.current(plan.model_name)
        runner = plan.runner()
        if runner is None or served is None or plan.served() is not served:
            del self._plans[key]
            return None
        return plan, runner, data[start:] if size < _VIEWED_BYTES else memoryview(data)[start:]

    def learn(self, request: ReadRequest, runner: Runner, asked: DecodedRequest) -> None:
        """Make a plan from a request that passed all checks, if its kind can have one and has none yet."""
        message, data = request.message, request.data
        if message.id or message.parameters or len(message.raw_input_contents) != 1 or not Plan.fits(runner, asked):
            return  # with an id, the bytes before the contents differ from request to request
        contents = message.raw_input_contents[0]
        start = len(data) - len(contents)
        # A later request is recognized by the bytes before its contents. That is safe only if the contents are the last
        # field, there are no unknown fields, and the fields are in canonical order; other requests get no plan.
        rest = ModelInferRequest()
        rest.CopyFrom(message)
        del rest.raw_input_contents[:]
        if data[:start] != rest.SerializeToString() + _RAW_INPUT_TAG + varint(len(contents)) or start > _LONGEST_KEY:
            return
        if self.known(data) is not None:
            return
        if any(each.parameters for each in message.inputs) or any(each.parameters for each in message.outputs):
            return
        served = self._repository.current(runner.name)
        if served is None or all(version.runner is not runner for version in served.ready):
            return
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
            self._contents_bytes.clear()
        self._contents_bytes[len(data)] = len(contents)
        self._plans[data[:start]] = Plan(
            served, runner, asked, checks_finite=self._checks_finite, is_streamed=self._is_streamed
        )
