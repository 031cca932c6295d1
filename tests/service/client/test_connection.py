from __future__ import annotations

import asyncio
import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import grpc
import numpy as np
import pytest

from service.client import (
    RETRIES,
    AsyncInferenceClient,
    InferenceClient,
    RetryPolicy,
    ServerError,
    Tls,
    TrainingClient,
)
from service.client.connection import ConnectionOptions, connection
from service.errors import Code
from service.pb import open_inference_pb2 as pb
from tests.conftest import publish_affine

ONES = {"x": np.ones((1, 3), np.float32)}


def test_every_option_of_a_client_has_a_default() -> None:
    taken = inspect.signature(connection).parameters
    assert {*ConnectionOptions.__annotations__} == {*taken} - {"target", "usual_port", "retry"}
    opened = connection("127.0.0.1:8001")
    assert (opened.timeout_s, opened.credentials, opened.metadata) == (30.0, None, ())
    assert ("grpc.max_receive_message_length", 64 * 2**20) in opened.options


@pytest.mark.parametrize("client", [InferenceClient, AsyncInferenceClient, TrainingClient])
def test_an_option_that_there_is_not_is_refused(client) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        client("127.0.0.1:8001", colour="red")


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ("unix:/tmp/x", "unix:/tmp/x"),
        (["name:1"], "name:1"),
        (["127.0.0.1:1", "127.0.0.2:2"], "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (["[::1]:1", "[::1]:2"], "ipv6:[::1]:1,[::1]:2"),
        (["localhost:1", "127.0.0.1:2"], "ipv4:127.0.0.1:1,127.0.0.1:2"),
    ],
)
def test_addresses_become_one_target(addresses, target) -> None:
    assert connection(addresses).target == target


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        ([], "at least one address"),
        (["127.0.0.1:1", "127.0.0.2"], "expected host:port"),
        (["127.0.0.1:1", "dns:///x"], "expected host:port"),
        ("127.0.0.1", r"target: got '127\.0\.0\.1', expected host:port such as 127\.0\.0\.1:8001"),
        (":99999", "target: got ':99999', expected host:port"),
        ("127.0.0.1:99999", "expected host:port"),
        ("127.0.0.1:0", "expected host:port"),
        ("", "target: got '', expected host:port"),
        ("http://127.0.0.1:8001", "target: got 'http://127.0.0.1:8001', expected host:port"),
        ("user@host:1", "expected host:port"),
        ("::1:8001", "expected host:port"),
        ("localhost", "expected host:port"),
        (["127.0.0.1:1", "[::1]:1"], "neither IPv4 nor IPv6 addresses in common"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused(addresses, says) -> None:
    with pytest.raises(ValueError, match=says):
        connection(addresses)


@pytest.mark.parametrize(
    ("addresses", "may_use_proxy"),
    [
        ("127.0.0.1:1", False),
        ("localhost:1", False),
        ("[::1]:1", False),
        ("unix:/tmp/x", False),
        (["127.0.0.1:1", "127.0.0.2:1"], False),
        ("192.0.2.1:1", True),
        (["127.0.0.1:1", "192.0.2.1:1"], True),
    ],
)
def test_a_proxy_is_not_asked_for_this_machine(addresses, may_use_proxy) -> None:
    assert dict(connection(addresses).options).get("grpc.enable_http_proxy", 1) == may_use_proxy


async def test_a_server_on_this_machine_is_reached_whatever_proxy_is_set(repository, serving, monkeypatch) -> None:
    publish_affine(repository)
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with serving(repository) as server, AsyncInferenceClient(f"127.0.0.1:{server.port}") as client:
        assert await client.is_live()


def test_with_tls_several_hosts_need_the_name_they_share() -> None:
    with pytest.raises(ValueError, match="give the server_name"):
        connection(["127.0.0.1:1", "127.0.0.2:1"], tls=Tls())
    options = dict(connection(["127.0.0.1:1", "127.0.0.2:1"], tls=Tls(server_name="models")).options)
    assert options["grpc.ssl_target_name_override"] == "models"
    assert dict(connection(["127.0.0.1:1", "127.0.0.1:2"], tls=Tls()).options)["grpc.default_authority"] == "127.0.0.1"


def test_the_service_config_says_round_robin_and_what_is_retried() -> None:
    config = json.loads(dict(connection("a:1", retry=RETRIES).options)["grpc.service_config"])
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    (method,) = config["methodConfig"]
    assert {"service": "inference.GRPCInferenceService"} in method["name"]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
    assert method["retryPolicy"]["maxAttempts"] == 5
    assert "methodConfig" not in json.loads(dict(connection("a:1").options)["grpc.service_config"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"attempts": 1}, "attempts: got 1, expected 2 to 5"),
        ({"attempts": 6}, "attempts: got 6, expected 2 to 5"),
        ({"initial_backoff_s": 0}, "initial_backoff_s: got 0"),
        ({"multiplier": -1}, "multiplier: got -1"),
        ({"codes": ()}, "codes: expected at least one"),
        ({"codes": (Code.OK,)}, "codes: expected at least one"),
    ],
)
def test_a_retry_policy_that_grpc_would_refuse_is_refused(fields, says) -> None:
    with pytest.raises(ValueError, match=says):
        RetryPolicy(**fields)


@pytest.mark.parametrize("token", ["", "a\nb", "é"])
def test_a_token_that_no_header_can_carry_is_refused(token) -> None:
    with pytest.raises(ValueError, match="token"):
        connection("127.0.0.1:1", token=token)


@pytest.mark.parametrize(
    "address",
    ["a:1", "10.0.0.1:1", "[fe80::1]:1", "dns:///models:1", "dns://10.0.0.1/localhost:1", "localhost.example:1",
     "ipv4:127.0.0.1:1,10.0.0.1:1", "xds:///localhost:1"],
)  # fmt: skip
def test_a_token_is_not_sent_where_others_can_read_it(address) -> None:
    with pytest.raises(ValueError, match="can read it; give tls, or token_in_plain_text=True"):
        connection(address, token="t")  # noqa: S106 - made up
    assert connection(address, token="t", token_in_plain_text=True).metadata  # noqa: S106 - made up
    assert connection(address, token="t", tls=Tls()).metadata  # noqa: S106 - made up


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:/tmp/x", "unix-abstract:x",
     "dns:///localhost:1", "ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1"],
)  # fmt: skip
def test_a_token_may_go_to_this_machine_itself(address) -> None:
    assert connection(address, token="t").metadata == (("authorization", "Bearer t"),)  # noqa: S106 - made up


def test_one_of_several_servers_elsewhere_is_enough_to_refuse_a_token() -> None:
    with pytest.raises(ValueError, match=r"on the way to 10\.0\.0\.1:1 can read it"):
        connection(["127.0.0.1:1", "10.0.0.1:1"], token="t")  # noqa: S106 - made up


def test_a_certificate_without_its_key_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="give both or neither"):
        Tls(certificate=b"x")
    (tmp_path / "root.pem").write_bytes(b"root")
    assert Tls.from_files(tmp_path / "root.pem") == Tls(root_certificates=b"root")


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(connection("127.0.0.1:1", token="secret"))  # noqa: S106 - made up
    assert "secret" not in repr(Tls(None, b"c", b"secret"))


class Scripted(grpc.GenericRpcHandler):
    """A server that answers ModelInfer with the given codes, then with success, and keeps the metadata."""

    def __init__(self, *codes: grpc.StatusCode) -> None:
        self.codes = list(codes)
        self.metadata: list[dict[str, str | bytes]] = []

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(
            self.infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
        )

    def infer(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        if self.codes:
            context.abort(self.codes.pop(0), "not now")
        return pb.ModelInferResponse(model_name=request.model_name, id=request.id)


@pytest.fixture
def scripted():
    started = []

    def start(*codes: grpc.StatusCode) -> tuple[Scripted, int]:
        script = Scripted(*codes)
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers([script])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        started.append(server)
        return script, port

    yield start
    for server in started:
        server.stop(None).wait()


UNAVAILABLE, INTERNAL = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL
CANCELLED = grpc.StatusCode.CANCELLED
FAST = RetryPolicy(initial_backoff_s=0.01, max_backoff_s=0.02)


@pytest.mark.parametrize(
    ("codes", "retry", "attempts", "raised"),
    [
        ((UNAVAILABLE,) * 4, FAST, 5, None),
        ((UNAVAILABLE,) * 5, FAST, 5, Code.UNAVAILABLE),
        ((UNAVAILABLE,), None, 1, Code.UNAVAILABLE),
        ((CANCELLED, UNAVAILABLE), FAST, 3, None),
        ((INTERNAL,), FAST, 1, Code.INTERNAL),
    ],
)
def test_only_what_may_pass_is_tried_again_and_only_when_asked(scripted, codes, retry, attempts, raised) -> None:
    script, port = scripted(*codes)
    with InferenceClient(f"127.0.0.1:{port}", retry=retry) as client:
        if raised is None:
            assert client.infer("m", {}, request_id="7").id == "7"
        else:
            with pytest.raises(ServerError, match="not now") as failure:
                client.infer("m", {})
            assert failure.value.code is raised
    assert len(script.metadata) == attempts


async def test_a_large_request_is_tried_again_too(scripted) -> None:
    script, port = scripted(UNAVAILABLE)
    async with AsyncInferenceClient(f"127.0.0.1:{port}", retry=FAST) as client:
        await client.infer("m", {"x": np.zeros((1000, 100), np.float32)})
    assert len(script.metadata) == 2


def test_token_and_metadata_go_with_every_call(scripted) -> None:
    script, port = scripted()
    with InferenceClient(f"127.0.0.1:{port}", token="t", metadata={"Team": "a"}) as client:  # noqa: S106 - made up
        client.infer("m", {}, metadata={"traceparent": "00-1-2-01"})
    (seen,) = script.metadata
    assert seen["authorization"] == "Bearer t"
    assert (seen["team"], seen["traceparent"]) == ("a", "00-1-2-01")


async def test_several_servers_take_turns_and_one_that_stops_costs_no_call(tmp_path, serving) -> None:
    repositories = [tmp_path / "a", tmp_path / "b"]
    for repository in repositories:
        repository.mkdir()
        publish_affine(repository)
    async with serving(repositories[0]) as staying, AsyncExitStack() as stack:
        leaving = await stack.enter_async_context(serving(repositories[1]))
        addresses = [f"127.0.0.1:{server.port}" for server in (staying, leaving)]
        async with AsyncInferenceClient(addresses, retry=RETRIES) as client:
            # Round robin takes turns among those connections that stand; the second may need a moment.
            for _ in range(200):
                await client.infer("affine", ONES)
                counts = [await served(server) for server in (staying, leaving)]
                if min(counts) >= 10:
                    break
                await asyncio.sleep(0.005)
            assert min(counts) >= 10
            calling = asyncio.create_task(call_until_told(client, told := asyncio.Event()))
            await asyncio.sleep(0.05)
            await stack.aclose()
            await asyncio.sleep(0.05)
            told.set()
            assert await calling > 0


async def served(server) -> int:
    async with AsyncInferenceClient(f"127.0.0.1:{server.port}") as client:
        return sum(entry.success.count for entry in await client.statistics())


async def call_until_told(client: AsyncInferenceClient, told: asyncio.Event) -> int:
    calls = 0
    while not told.is_set():
        answer = await client.infer("affine", ONES)
        assert answer.outputs["y"].tolist() == [[3, 3, 3]]
        calls += 1
    return calls
